//! Until when a certificate is good. Whom it is for and who signed it is verified by the TLS library.

use jiff::Timestamp;
use x509_cert::Certificate;
use x509_cert::der::Decode as _;
use x509_cert::time::Time;

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
    let validity = Certificate::from_der(der).ok()?.tbs_certificate.validity;
    let moment = |time: Time| Timestamp::from_second(time.to_unix_duration().as_secs().try_into().ok()?).ok();
    Some((moment(validity.not_before)?, moment(validity.not_after)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// With the two ways in which a certificate writes a time: two digits of the year up to 2049, then four.
    fn certificate(end: i32) -> Vec<u8> {
        let mut params = rcgen::CertificateParams::new(vec!["x".to_owned()]).unwrap();
        params.not_before = rcgen::date_time_ymd(2020, 1, 2);
        params.not_after = rcgen::date_time_ymd(end, 1, 2);
        params.self_signed(&rcgen::KeyPair::generate().unwrap()).unwrap().der().to_vec()
    }

    #[test]
    fn the_end_is_read() {
        let der = certificate(2030);
        assert_eq!(validity(&der).unwrap().1.to_string(), "2030-01-02T00:00:00Z");
        assert_eq!(validity(&certificate(2070)).unwrap().1.to_string(), "2070-01-02T00:00:00Z");
        let at = |text: &str| judge(&der, text.parse().unwrap());
        assert!(at("2029-01-02T00:00:00Z").is_fine());
        assert!(at("2029-12-29T21:00:00Z").seen().contains("ends in 3 days"));
        assert!(!judge(&der[..der.len() - 1], "2029-01-02T00:00:00Z".parse().unwrap()).is_fine());
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
