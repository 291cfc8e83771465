//! Amounts of CPU and memory, written in one way.

/// `cpu: 1000m` as `1`, `memory: 1024Mi` as `1Gi`; what is no amount stays as it is.
pub(super) fn canonical(resource: &str, text: &str) -> String {
    let Some(thousandths) = thousandths(text) else { return text.to_owned() };
    if thousandths % 1000 != 0 {
        return format!("{thousandths}m");
    }
    let whole = thousandths / 1000;
    if resource == "cpu" || whole == 0 {
        return whole.to_string();
    }
    let units = [("Ti", 40), ("Gi", 30), ("Mi", 20), ("Ki", 10)];
    let unit = units.into_iter().find(|(_, bits)| whole % (1 << bits) == 0);
    unit.map_or_else(|| whole.to_string(), |(unit, bits)| format!("{}{unit}", whole >> bits))
}

fn thousandths(text: &str) -> Option<u128> {
    let at = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, suffix) = text.split_at(at);
    let factor: u128 = match suffix {
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
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    let whole = whole.parse::<u64>().ok()?;
    let scale = 10_u128.checked_pow(u32::try_from(fraction.len()).ok()?).filter(|scale| *scale <= 1_000_000)?;
    let fraction = if fraction.is_empty() { 0 } else { u128::from(fraction.parse::<u64>().ok()?) };
    Some((u128::from(whole) * scale + fraction) * factor / scale)
}

#[cfg(test)]
mod tests {
    use super::canonical;

    #[test]
    fn what_means_the_same_is_written_the_same() {
        for (resource, same) in [
            ("cpu", ["1", "1000m", "1.0"]),
            ("cpu", ["100m", "0.1", "0.100"]),
            ("memory", ["1536Mi", "1.5Gi", "1610612736"]),
        ] {
            assert!(same.iter().all(|text| canonical(resource, text) == same[0]), "{same:?}");
        }
        assert_eq!(canonical("memory", "1024Mi"), "1Gi");
        for odd in ["", "x", "1e3", "1..2", "99999999999999999999999Gi"] {
            assert_eq!(canonical("memory", odd), odd);
        }
    }
}
