//! Quantities of Kubernetes: `192Mi` of memory, `200m` of a processor.

/// An amount as it is written: the whole number, its decimals, and how many thousandths its unit is.
struct Written<'a> {
    whole: &'a str,
    decimals: &'a str,
    unit: u128,
}

impl<'a> Written<'a> {
    fn read(text: &'a str) -> Option<Self> {
        let split = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
        let (number, unit) = text.split_at(split);
        let unit: u128 = match unit {
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
        let (whole, decimals) = number.split_once('.').unwrap_or((number, ""));
        Some(Self { whole, decimals, unit })
    }

    /// Nothing where it is no number, or none that anybody has.
    fn thousandths(&self) -> Option<u128> {
        let scale = 10u128.checked_pow(u32::try_from(self.decimals.len()).ok()?)?;
        let digits: u128 = format!("{}{}", self.whole, self.decimals).parse().ok()?;
        Some(digits.checked_mul(self.unit)? / scale)
    }
}

/// In thousandths; nothing where it is no quantity.
fn thousandths(text: &str) -> Option<u128> {
    let written = Written::read(text)?;
    // More decimals than these mean nothing to anybody.
    let decimals = written.decimals.get(..written.decimals.len().min(9))?;
    Written { decimals, ..written }.thousandths()
}

/// `cpu: 1000m` as `1`, `memory: 1024Mi` as `1Gi`; what is no amount, or an odd one, stays as it is.
pub(crate) fn canonical(resource: &str, text: &str) -> String {
    let is_usual = |written: &Written<'_>| written.whole.parse::<u64>().is_ok() && written.decimals.len() <= 6;
    let thousandths = Written::read(text).filter(is_usual).and_then(|written| written.thousandths());
    let Some(thousandths) = thousandths else { return text.to_owned() };
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
        for odd in ["", "x", "1e3", "1..2", "99999999999999999999999Gi", "18446744073709551615.000001Ti"] {
            assert_eq!(canonical("memory", odd), odd);
        }
    }
}
