//! Quantities of Kubernetes: `192Mi` of memory, `200m` of a processor.

/// In thousandths; nothing where it is no quantity.
fn thousandths(text: &str) -> Option<u128> {
    let split = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(split);
    let factor: u128 = match unit {
        "m" => 1,
        "" => 1000,
        "k" => 1_000_000,
        "M" => 1_000_000_000,
        "G" => 1_000_000_000_000,
        "T" => 1_000_000_000_000_000,
        "Ki" => 1000 << 10,
        "Mi" => 1000 << 20,
        "Gi" => 1000 << 30,
        "Ti" => 1000 << 40,
        _ => return None,
    };
    let (whole, part) = number.split_once('.').unwrap_or((number, ""));
    // More decimals than these mean nothing to anybody.
    let part = part.get(..part.len().min(9))?;
    let scale = 10u128.pow(u32::try_from(part.len()).ok()?);
    let digits: u128 = format!("{whole}{part}").parse().ok()?;
    Some(digits.checked_mul(factor)? / scale)
}

/// Bytes.
pub(crate) fn bytes(text: &str) -> Option<u64> {
    u64::try_from(thousandths(text)? / 1000).ok()
}

/// Thousandths of a processor.
pub(crate) fn millicores(text: &str) -> Option<u64> {
    u64::try_from(thousandths(text)?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantities_are_read() {
        assert_eq!(bytes("192Mi"), Some(192 << 20));
        assert_eq!(bytes("1.5Gi"), Some(3 << 29));
        assert_eq!((bytes("64M"), bytes("1000")), (Some(64_000_000), Some(1000)));
        assert_eq!((millicores("200m"), millicores("1"), millicores("0.5")), (Some(200), Some(1000), Some(500)));
        assert_eq!([bytes(""), bytes("Mi"), bytes("1Xi"), bytes("-1")], [None; 4]);
    }
}
