//! Python's tarfile: the bytes that it puts before a file, since nixpkgs writes its layers with it.

/// What every entry of a layer shares.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Stamp {
    pub(crate) mtime: u64,
    pub(crate) uid: u64,
    pub(crate) gid: u64,
    pub(crate) uname: String,
    pub(crate) gname: String,
}

/// What an entry is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind<'a> {
    File { size: u64 },
    Folder,
    Link { target: &'a str },
}

/// A tarball is made of blocks of this size, and ends with two empty ones.
pub(crate) const BLOCK: usize = 512;

/// The whole is filled up to a multiple of this.
pub(crate) const RECORD: usize = 20 * BLOCK;

/// The header of an entry, with what does not fit into it before it.
pub(crate) fn header(name: &str, kind: Kind<'_>, mode: u32, stamp: &Stamp) -> Vec<u8> {
    let (flag, size, target) = match kind {
        Kind::File { size } => (b'0', size, ""),
        Kind::Folder => (b'5', 0, ""),
        Kind::Link { target } => (b'2', 0, target),
    };
    let name = if flag == b'5' && !name.ends_with('/') { format!("{name}/") } else { name.to_owned() };
    let mut records = Vec::new();
    let texts =
        [("path", &*name, 100), ("linkpath", target, 100), ("uname", &stamp.uname, 32), ("gname", &stamp.gname, 32)];
    for (keyword, text, most) in texts {
        if !text.is_ascii() || text.len() > most {
            records.extend(record(keyword, text));
        }
    }
    let mut number = |keyword: &str, value: u64, digits: u32| {
        let fits = value < 8_u64.pow(digits);
        if !fits {
            records.extend(record(keyword, &value.to_string()));
        }
        if fits { value } else { 0 }
    };
    let numbers = [
        number("uid", stamp.uid, 7),
        number("gid", stamp.gid, 7),
        number("size", size, 11),
        number("mtime", stamp.mtime, 11),
    ];
    let mut bytes = Vec::new();
    if !records.is_empty() {
        let plain = block("././@PaxHeader", b'x', 0, [0, 0, records.len() as u64, 0], ["", "", ""]);
        bytes.extend(plain);
        bytes.extend(&records);
        bytes.resize(bytes.len().next_multiple_of(BLOCK), 0);
    }
    bytes.extend(block(&name, flag, mode & 0o7777, numbers, [target, &stamp.uname, &stamp.gname]));
    bytes
}

/// `length keyword=value`, where the length counts its own digits too.
fn record(keyword: &str, value: &str) -> Vec<u8> {
    let rest = keyword.len() + value.len() + 3;
    let mut length = rest;
    while rest + length.to_string().len() != length {
        length = rest + length.to_string().len();
    }
    format!("{length} {keyword}={value}\n").into_bytes()
}

fn block(name: &str, flag: u8, mode: u32, numbers: [u64; 4], [target, uname, gname]: [&str; 3]) -> Vec<u8> {
    let [uid, gid, size, mtime] = numbers;
    let mut bytes = Vec::with_capacity(BLOCK);
    text(&mut bytes, name, 100);
    bytes.extend(format!("{mode:07o}\0{uid:07o}\0{gid:07o}\0{size:011o}\0{mtime:011o}\0        ").into_bytes());
    bytes.push(flag);
    text(&mut bytes, target, 100);
    bytes.extend(b"ustar\x0000");
    text(&mut bytes, uname, 32);
    text(&mut bytes, gname, 32);
    bytes.resize(BLOCK, 0);
    let sum: u32 = bytes.iter().map(|byte| u32::from(*byte)).sum();
    for (place, byte) in bytes.iter_mut().skip(148).zip(format!("{sum:06o}\0 ").bytes()) {
        *place = byte;
    }
    bytes
}

/// As much of it as has room, with a question mark for what is not ASCII.
fn text(bytes: &mut Vec<u8>, text: &str, room: usize) {
    let end = bytes.len() + room;
    let ascii = text.chars().map(|c| u8::try_from(c).ok().filter(u8::is_ascii).unwrap_or(b'?'));
    bytes.extend(ascii.take(room));
    bytes.resize(end, 0);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stamp() -> Stamp {
        Stamp { mtime: 1, uid: 0, gid: 0, uname: "root".to_owned(), gname: "root".to_owned() }
    }

    #[test]
    fn a_reader_finds_what_was_written() {
        let long = format!("/nix/store/{}/ä", "x".repeat(200));
        let mut bytes = header("/nix", Kind::Folder, 0o555, &stamp());
        bytes.extend(header(&long, Kind::File { size: 3 }, 0o100_444, &stamp()));
        bytes.extend(b"abc");
        bytes.resize(bytes.len().next_multiple_of(BLOCK), 0);
        bytes.extend(header("/nix/link", Kind::Link { target: &long }, 0o777, &stamp()));
        bytes.resize(bytes.len() + 2 * BLOCK, 0);
        let mut archive = tar::Archive::new(&bytes[..]);
        let mut seen = Vec::new();
        for entry in archive.entries().unwrap() {
            let entry = entry.unwrap();
            let link = entry.link_name().unwrap().map(|link| link.to_string_lossy().into_owned());
            let header = entry.header();
            assert_eq!((header.mtime().unwrap(), header.username().unwrap()), (1, Some("root")));
            seen.push((
                entry.path().unwrap().to_string_lossy().into_owned(),
                header.mode().unwrap(),
                entry.size(),
                link,
            ));
        }
        let path = |text: &str| text.to_owned();
        let expected = [
            (path("/nix/"), 0o555, 0, None),
            (path(&long), 0o444, 3, None),
            (path("/nix/link"), 0o777, 0, Some(path(&long))),
        ];
        assert_eq!(seen, expected);
    }

    #[test]
    fn a_record_counts_its_own_length() {
        assert_eq!(record("path", "a"), b"9 path=a\n");
        for length in 80..120 {
            let record = record("path", &"x".repeat(length));
            let claimed: usize = String::from_utf8_lossy(&record).split(' ').next().unwrap().parse().unwrap();
            assert_eq!(claimed, record.len());
        }
    }
}
