//! Points in time as SAML writes them (SAML Core §1.3.3): `xsd:dateTime` in UTC.

/// Seconds since the epoch at `text`, which is `YYYY-MM-DDTHH:MM:SSZ`, years 1970 to 9999. A fraction
/// of a second, of at most nine digits, is dropped.
///
/// `None` for anything else: another zone or none, a leap second, 24:00, blanks.
pub fn parse(text: &str) -> Option<u64> {
    let (whole, fraction) = text.split_at_checked(19)?;
    let fraction = fraction.strip_suffix('Z')?;
    if !fraction.is_empty() {
        let digits = fraction.strip_prefix('.')?;
        let is_number = digits.bytes().all(|digit| digit.is_ascii_digit());
        if digits.is_empty() || digits.len() > 9 || !is_number {
            return None;
        }
    }
    let mut fields = [0u64; 6];
    let mut field = fields.iter_mut();
    let mut current = field.next()?;
    for (byte, shape) in whole.bytes().zip(b"0000-00-00T00:00:00") {
        match (byte, shape) {
            (b'0'..=b'9', b'0') => *current = *current * 10 + u64::from(byte - b'0'),
            _ if byte == *shape => current = field.next()?,
            _ => return None,
        }
    }
    let [year, month, day, hour, minute, second] = fields;
    let is_leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let days_in_month = match month {
        1 | 3 | 5 | 7 | 8 | 10 | 12 => 31,
        4 | 6 | 9 | 11 => 30,
        2 => 28 + u64::from(is_leap),
        _ => return None,
    };
    if year < 1970 || day == 0 || day > days_in_month || hour > 23 || minute > 59 || second > 59 {
        return None;
    }
    Some(((days(year, month, day) * 24 + hour) * 60 + minute) * 60 + second)
}

/// Days from the epoch to a date of the Gregorian calendar, in years that begin in March, so that the
/// leap day is the last.
fn days(year: u64, month: u64, day: u64) -> u64 {
    let year = if month > 2 { year } else { year - 1 };
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    let since_year_0 = 365 * year + year / 4 - year / 100 + year / 400 + day_of_year;
    since_year_0 - 719_468
}

#[cfg(test)]
mod tests {
    use super::*;
    #[cfg(all(target_arch = "wasm32", target_os = "unknown"))]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    #[test]
    fn a_time_in_utc_is_read_to_the_second() {
        let times = [
            ("1970-01-01T00:00:00Z", 0),
            ("1970-03-01T00:00:00Z", 5_097_600),
            ("2000-02-29T12:34:56Z", 951_827_696),
            ("2027-01-15T08:00:00Z", 1_800_000_000),
            ("2027-01-15T08:00:00.999Z", 1_800_000_000),
            ("2038-01-19T03:14:08.123456789Z", 2_147_483_648),
            ("9999-12-31T23:59:59Z", 253_402_300_799),
        ];

        for (text, seconds) in times {
            assert_eq!(parse(text), Some(seconds), "{text}");
        }
    }

    #[test]
    fn every_day_follows_the_one_before() {
        let mut next = 0;

        for year in 1970..2410u64 {
            for month in 1..=12u64 {
                for day in 1..=31u64 {
                    let text = format!("{year}-{month:02}-{day:02}T00:00:00Z");
                    if let Some(seconds) = parse(&text) {
                        assert_eq!(seconds, next, "{text}");
                        next += 86_400;
                    }
                }
            }
        }
    }

    #[test]
    fn what_is_not_a_time_in_utc_is_none() {
        let bad = [
            "",
            "Z",
            "2027-01-15",
            "2027-01-15T08:00:00",
            "2027-01-15T08:00:00z",
            "2027-01-15t08:00:00Z",
            "2027-01-15 08:00:00Z",
            " 2027-01-15T08:00:00Z",
            "2027-01-15T08:00:00Z ",
            "2027-01-15T08:00:00+00:00",
            "2027-01-15T08:00:00.Z",
            "2027-01-15T08:00:00.1234567890Z",
            "2027-01-15T08:00:00.1x Z",
            "2027-01-15T08:00:00,1Z",
            "2027-02-29T00:00:00Z",
            "2100-02-29T00:00:00Z",
            "2027-04-31T00:00:00Z",
            "2027-00-15T00:00:00Z",
            "2027-13-15T00:00:00Z",
            "2027-01-00T00:00:00Z",
            "2027-01-15T24:00:00Z",
            "2027-01-15T08:60:00Z",
            "2027-01-15T08:00:60Z",
            "1969-12-31T23:59:59Z",
            "10000-01-01T00:00:00Z",
            "-2027-01-15T08:00:00Z",
            "+027-01-15T08:00:00Z",
            "2027-1-15T08:00:00ZZZ",
            "２027-01-15T08:00Z",
            "2027-01-15T08:00:0äZ",
        ];

        for text in bad {
            assert_eq!(parse(text), None, "{text}");
        }
    }
}
