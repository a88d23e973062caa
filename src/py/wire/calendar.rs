//! Days and moments as the server counts them: from 1 January 2000 on.

/// Microseconds.
pub(super) const DAY: i64 = 86_400_000_000;
/// From the first day of the calendar's era (1 March of the year 0) to 1 January 2000, the server's first.
const ERA_TO_2000: i64 = 730_425;
const DAYS_OF_400_YEARS: i64 = 146_097;

/// The date so many days after 1 January 2000; none where Python has none.
///
/// Source: Howard Hinnant, "chrono-Compatible Low-Level Date Algorithms", `civil_from_days`.
pub(super) fn date(days: i64) -> Option<(i32, u8, u8)> {
    let days = days.checked_add(ERA_TO_2000)?;
    let (era, day) = (
        days.div_euclid(DAYS_OF_400_YEARS),
        days.rem_euclid(DAYS_OF_400_YEARS),
    );
    let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let shifted = (5 * day + 2) / 153;
    let month = if shifted < 10 {
        shifted + 3
    } else {
        shifted - 9
    };
    let year = year + era * 400 + i64::from(month <= 2);
    if !(1..=9999).contains(&year) {
        return None;
    }
    let day = day - (153 * shifted + 2) / 5 + 1;
    Some((
        i32::try_from(year).ok()?,
        u8::try_from(month).ok()?,
        u8::try_from(day).ok()?,
    ))
}

/// How many days after 1 January 2000 a date is.
///
/// Source: as before, `days_from_civil`.
pub(super) fn days(year: i32, month: u8, day: u8) -> i64 {
    let (month, day) = (i64::from(month), i64::from(day));
    let year = i64::from(year) - i64::from(month <= 2);
    let era = year.div_euclid(400);
    let year = year.rem_euclid(400);
    let shifted = if month > 2 { month - 3 } else { month + 9 };
    let day = (153 * shifted + 2) / 5 + day - 1;
    era * DAYS_OF_400_YEARS + year * 365 + year / 4 - year / 100 + day - ERA_TO_2000
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_the_calendars() {
        assert_eq!(date(0), Some((2000, 1, 1)));
        assert_eq!(date(59), Some((2000, 2, 29)));
        assert_eq!(date(-1), Some((1999, 12, 31)));
        assert_eq!(date(-730_119), Some((1, 1, 1)));
        assert_eq!(date(-730_120), None);
        assert_eq!(date(2_921_939), Some((9999, 12, 31)));
        assert_eq!(date(2_921_940), None);
        assert_eq!(date(i64::from(i32::MAX)), None);
        assert_eq!(date(i64::MAX), None);
        for day in (-730_119..=2_921_939).step_by(97) {
            let (year, month, of_month) = date(day).unwrap_or_default();
            assert_eq!(days(year, month, of_month), day);
        }
    }
}
