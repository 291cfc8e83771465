//! Archives: those that nix-build leaves, and the headers that are written into layers.

use std::io::Read as _;

use crate::model::digest::Digest;
use crate::model::image;
use crate::tools::archive;
use crate::tools::tarfile::{BLOCK, Kind, Stamp, header};

/// A gzip of a few bytes unpacks to very many; what is slow is not what is looked for.
const MOST: u64 = 1 << 20;

pub(crate) fn bytes(bytes: &[u8]) {
    read(bytes);
    if let Some((choice, rest)) = bytes.split_first() {
        written(*choice, &String::from_utf8_lossy(rest));
    }
    drop((image::layers(bytes), crate::probes::certificate::judge(bytes, jiff::Timestamp::UNIX_EPOCH)));
}

fn read(bytes: &[u8]) {
    let plain = |bytes| archive::plain(bytes).map(|plain| plain.take(MOST));
    let Ok(tarball) = plain(bytes).and_then(|mut plain| {
        let mut all = Vec::new();
        plain.read_to_end(&mut all).map_err(|error| error.to_string())?;
        Ok(all)
    }) else {
        return;
    };
    let contents = archive::read(&tarball[..]);
    let index = archive::index(&tarball[..]);
    if let (Ok(contents), Ok(index)) = (&contents, &index) {
        assert_eq!(contents.image_id, Digest::of(&index.config).to_string());
        assert_eq!(contents.layers, index.layers.len());
    }
    let mut names = Vec::new();
    let each = archive::each(&tarball[..], |name, file| {
        names.push(name.to_owned());
        std::io::copy(&mut file.take(MOST), &mut std::io::sink())?;
        Ok(())
    });
    // Whatever an index names can be taken out.
    if let (Ok(index), Ok(())) = (index, each) {
        assert!(index.layers.iter().all(|layer| names.contains(&layer.name)));
    }
}

/// A reader finds what was written.
fn written(choice: u8, text: &str) {
    let (name, target) = text.split_once('\n').unwrap_or((text, "/nix/store/x"));
    // The reader, unlike Python's, ends what does not fit into a header at a line's end.
    let is_path = |path: &str| !path.is_empty() && !path.contains(['\0', '\n']);
    if !is_path(name) || !is_path(target) || name.ends_with('/') {
        return;
    }
    let big = u64::from(choice) << (choice % 40);
    let stamp = Stamp { mtime: big, uid: big / 2, gid: big / 3, uname: "root".to_owned(), gname: target.to_owned() };
    let kind = match choice % 3 {
        0 => Kind::File { size: 0 },
        1 => Kind::Folder,
        _ => Kind::Link { target },
    };
    let mut bytes = header(name, kind, 0o755, &stamp);
    assert_eq!(bytes.len() % BLOCK, 0);
    bytes.resize(bytes.len() + 2 * BLOCK, 0);
    let mut archive = tar::Archive::new(&bytes[..]);
    let mut entries = archive.entries().expect("a tarball");
    let entry = entries.next().expect("an entry").expect("a whole entry");
    let path = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
    assert_eq!(path, if kind == Kind::Folder { format!("{name}/") } else { name.to_owned() });
    if let Kind::Link { target } = kind {
        let link = entry.link_name_bytes().expect("a target");
        assert_eq!(String::from_utf8_lossy(&link), target);
    }
    assert_eq!(entry.header().mode().ok(), Some(0o755));
}
