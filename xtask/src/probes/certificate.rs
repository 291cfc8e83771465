//! Until when a certificate is good. Whom it is for and who signed it is verified by the TLS library.

use jiff::Timestamp;

use super::Verdict;

/// One with fewer hours left was not renewed in time; of a short-lived one it is a fifth of its life.
const LEAST_HOURS: i64 = 10 * 24;

/// Judges the certificate of a connection that the TLS library has accepted.
pub(crate) fn judge(der: &[u8], now: Timestamp) -> Verdict {
    let Some((start, end)) = validity(der) else {
        return Verdict::bad("the certificate can't be read");
    };
    let hours = end.duration_since(now).as_hours();
    let least = LEAST_HOURS.min(end.duration_since(start).as_hours() / 5);
    let left = if hours.abs() < 48 { format!("{hours} hours") } else { format!("{} days", hours / 24) };
    if end > now && hours >= least {
        Verdict::Fine(format!("verified, {left} left"))
    } else {
        Verdict::bad(format!("the certificate ends in {left}, at {end}: it was not renewed"))
    }
}

/// From when and until when an X.509 certificate in DER is good.
fn validity(der: &[u8]) -> Option<(Timestamp, Timestamp)> {
    let (_, certificate, _) = element(der)?;
    let (_, mut body, _) = element(certificate)?;
    // version, where it is written; serial number; algorithm; issuer; then the validity
    if *body.first()? == 0xa0 {
        body = element(body)?.2;
    }
    for _ in 0..3 {
        body = element(body)?.2;
    }
    let (_, validity, _) = element(body)?;
    let (start_tag, start, rest) = element(validity)?;
    let (tag, end, _) = element(rest)?;
    Some((moment(start_tag, start)?, moment(tag, end)?))
}

/// A time of ASN.1.
fn moment(tag: u8, time: &[u8]) -> Option<Timestamp> {
    let text = std::str::from_utf8(time).ok()?;
    // UTCTime has two digits of the year, up to 49 for this century.
    let text = match tag {
        0x17 if text.as_bytes().first()? < &b'5' => format!("20{text}"),
        0x17 => format!("19{text}"),
        0x18 => text.to_owned(),
        _ => return None,
    };
    let part = |from: usize, to: usize| text.get(from..to);
    let (date, time) = ((part(0, 4)?, part(4, 6)?, part(6, 8)?), (part(8, 10)?, part(10, 12)?, part(12, 14)?));
    format!("{}-{}-{}T{}:{}:{}Z", date.0, date.1, date.2, time.0, time.1, time.2).parse().ok()
}

/// Tag, content and what follows of the first DER element.
fn element(der: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (&tag, rest) = der.split_first()?;
    let (&first, rest) = rest.split_first()?;
    let (length, rest) = if first < 0x80 {
        (usize::from(first), rest)
    } else {
        let (bytes, rest) = rest.split_at_checked(usize::from(first & 0x7f)).filter(|(bytes, _)| bytes.len() <= 4)?;
        (bytes.iter().fold(0, |length, byte| length << 8 | usize::from(*byte)), rest)
    };
    let (content, rest) = rest.split_at_checked(length)?;
    Some((tag, content, rest))
}

#[cfg(test)]
mod tests {
    use super::*;
    use base64::Engine as _;

    /// Made by openssl: CN=x, valid until 2030-01-02 03:04:05.
    const CERTIFICATE: &str = "MIIBHDCBwqADAgECAgEBMAoGCCqGSM49BAMCMAwxCjAIBgNVBAMMAXgwHhcNMjAwMTAyMDMwNDA1WhcNMzAwMTAyMDMwNDA1WjAMMQowCAYDVQQDDAF4";

    #[test]
    fn the_end_is_read() {
        // Only the part up to the validity is needed.
        let mut der = base64::engine::general_purpose::STANDARD.decode(CERTIFICATE).unwrap();
        let outer = u8::try_from(der.len() - 4).unwrap();
        let inner = u8::try_from(der.len() - 7).unwrap();
        (der[1], der[2], der[3]) = (0x82, 0, outer);
        (der[5], der[6]) = (0x81, inner);
        assert_eq!(validity(&der).unwrap().1.to_string(), "2030-01-02T03:04:05Z");
        let at = |text: &str| judge(&der, text.parse().unwrap());
        assert!(at("2029-01-02T00:00:00Z").is_fine());
        assert!(at("2029-12-30T00:00:00Z").seen().contains("ends in 3 days"));
    }

    #[test]
    fn no_bytes_make_it_panic() {
        for length in 0..40 {
            for byte in [0, 0x30, 0x81, 0x84, 0xff] {
                assert!(!judge(&vec![byte; length], Timestamp::UNIX_EPOCH).is_fine());
            }
        }
    }
}
