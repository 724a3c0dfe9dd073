//! Start times of tasks: the Schedule object of a submit (docs/apis/jp1ao.md,
//! "Schedules in submit and resubmit").

use std::time::{Duration, SystemTime};

use serde_json::{Map, Value, json};

use super::errors::ApiError;
use super::list::csv;
use super::time_format::{self, Day};
use super::{Call, Jp1aoVersion, boolean, text};

/// Number of days searched for the next start of a recurrence.
const MAX_SEARCH_DAYS: usize = 366;
const HOUR: Duration = Duration::from_secs(3600);
const DAYS: [&str; 7] = ["sun", "mon", "tue", "wed", "thu", "fri", "sat"];

/// Start times of tasks. Recurrences keep the texts of the request.
#[derive(Clone, Debug, PartialEq)]
pub enum StartTimes {
    Immediate,
    At(SystemTime),
    Recurring(Recurrence),
}

#[derive(Clone, Debug, Default, PartialEq)]
pub struct Recurrence {
    /// `hourly`, `daily`, `weekly` or `monthly`; the sandbox's own names.
    interval: String,
    minutes: Option<String>,
    days_of_week: Option<String>,
    days_of_month: Option<String>,
    last_day: Option<bool>,
    start: Option<String>,
    time: Option<String>,
}

impl StartTimes {
    /// Returns `scheduleType`.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Immediate => "immediate",
            Self::At(_) => "schedule",
            Self::Recurring(_) => "recurrence",
        }
    }

    pub fn read(given: &Map<String, Value>) -> Result<Self, ApiError> {
        let short = |name: &str| text(given, name, 200);
        match short("scheduleType")?.as_deref() {
            Some("immediate") => Ok(Self::Immediate),
            Some("schedule") => {
                let start = short("scheduledStartTime")?.unwrap_or_default();
                let start = time_format::parse(&start, false);
                start
                    .map(Self::At)
                    .ok_or_else(|| ApiError::body("scheduledStartTime is no time"))
            }
            Some("recurrence") => {
                let recurrence = Recurrence {
                    interval: short("recurrenceInterval")?.unwrap_or_default(),
                    minutes: short("recurrenceMinutes")?,
                    days_of_week: short("recurrenceDayOfWeek")?,
                    days_of_month: short("recurrenceDayOfMonth")?,
                    last_day: boolean(given, "recurrenceLastDayOfMonth")?,
                    start: short("recurrenceStartDate")?,
                    time: short("recurrenceTime")?,
                };
                recurrence
                    .rule()
                    .map_err(|name| ApiError::body(format!("{name} is wrong")))?;
                Ok(Self::Recurring(recurrence))
            }
            _ => Err(ApiError::body(
                "scheduleType is none of immediate, schedule, recurrence",
            )),
        }
    }

    /// Returns the first start at or after `from`.
    pub fn next(&self, from: SystemTime) -> Option<SystemTime> {
        match self {
            Self::Immediate => Some(from),
            Self::At(at) => Some(*at),
            Self::Recurring(recurrence) => recurrence.rule().ok()?.next(from),
        }
    }

    /// Adds the members that describe the start times; tasks have some of them too.
    pub fn show(&self, call: &Call<'_>, shown: &mut Value, scheduled: SystemTime) {
        let nothing = Recurrence::default();
        let recurrence = match self {
            Self::Recurring(recurrence) => recurrence,
            _ => &nothing,
        };
        let or_null = |text: &Option<String>| text.clone().map_or(Value::Null, Value::from);
        let recurring = matches!(self, Self::Recurring(_));
        shown["scheduleType"] = self.kind().into();
        shown["scheduledStartTime"] = match self {
            Self::Immediate => Value::Null,
            _ => call.time(scheduled).into(),
        };
        shown["recurrenceInterval"] = recurring.then(|| recurrence.interval.clone()).into();
        if call.options.version != Jp1aoVersion::V10 {
            shown["recurrenceMinutes"] = or_null(&recurrence.minutes);
        }
        shown["recurrenceDayOfWeek"] = or_null(&recurrence.days_of_week);
        shown["recurrenceDayOfMonth"] = or_null(&recurrence.days_of_month);
        shown["recurrenceLastDayOfMonth"] = recurrence.last_day.unwrap_or(false).into();
        shown["recurrenceStartDate"] = or_null(&recurrence.start);
        shown["recurrenceTime"] = or_null(&recurrence.time);
    }
}

/// A parsed recurrence.
struct Rule<'a> {
    every_hour_at: Option<Duration>,
    time: Duration,
    start: SystemTime,
    weekdays: Option<Vec<u64>>,
    days: Option<Vec<&'a str>>,
    last_day: bool,
}

impl Recurrence {
    /// Parses the recurrence. Fails with the name of the invalid member.
    fn rule(&self) -> Result<Rule<'_>, &'static str> {
        let minutes = match self.minutes.as_deref().unwrap_or("0").parse::<u64>() {
            Ok(minutes @ 0..=59) => Duration::from_secs(minutes * 60),
            _ => return Err("recurrenceMinutes"),
        };
        let weekdays = csv(self.days_of_week.as_deref().unwrap_or_default())
            .into_iter()
            .map(|name| {
                let start = name.get(..3).unwrap_or(name).to_lowercase();
                DAYS.iter()
                    .position(|day| *day == start)
                    .map(|day| day as u64)
            })
            .collect::<Option<Vec<u64>>>()
            .ok_or("recurrenceDayOfWeek")?;
        let days = csv(self.days_of_month.as_deref().unwrap_or_default());
        if days
            .iter()
            .any(|day| !day.parse().is_ok_and(|day: u32| (1..=31).contains(&day)))
        {
            return Err("recurrenceDayOfMonth");
        }
        let last_day = self.last_day.unwrap_or(false);
        let time = match &self.time {
            // The same time on every day.
            Some(time) => {
                let day = time_format::parse(&format!("2000-01-01T{time}"), false)
                    .ok_or("recurrenceTime")?;
                day.duration_since(Day::of(day).at(Duration::ZERO))
                    .map_err(|_| "recurrenceTime")?
            }
            None => Duration::ZERO,
        };
        let start = match &self.start {
            Some(start) => time_format::parse(start, false).ok_or("recurrenceStartDate")?,
            None => SystemTime::UNIX_EPOCH,
        };
        let rule = Rule {
            every_hour_at: None,
            time,
            start,
            weekdays: None,
            days: None,
            last_day: false,
        };
        match self.interval.as_str() {
            "hourly" => Ok(Rule {
                every_hour_at: Some(minutes),
                ..rule
            }),
            "daily" => Ok(rule),
            "weekly" if weekdays.is_empty() => Err("recurrenceDayOfWeek"),
            "weekly" => Ok(Rule {
                weekdays: Some(weekdays),
                ..rule
            }),
            "monthly" if days.is_empty() && !last_day => Err("recurrenceDayOfMonth"),
            "monthly" => Ok(Rule {
                days: Some(days),
                last_day,
                ..rule
            }),
            _ => Err("recurrenceInterval"),
        }
    }
}

impl Rule<'_> {
    fn next(&self, from: SystemTime) -> Option<SystemTime> {
        let from = from.max(self.start);
        if let Some(minutes) = self.every_hour_at {
            let midnight = Day::of(from).at(Duration::ZERO);
            return (0..=25u32)
                .map(|hour| midnight + HOUR * hour + minutes)
                .find(|at| *at >= from);
        }
        std::iter::successors(Some(Day::of(from)), |day| Some(day.next()))
            .take(MAX_SEARCH_DAYS)
            .filter(|day| self.falls_on(*day))
            .map(|day| day.at(self.time))
            .find(|at| *at >= from)
    }

    fn falls_on(&self, day: Day) -> bool {
        match (&self.weekdays, &self.days) {
            (Some(weekdays), _) => weekdays.contains(&day.weekday()),
            (None, Some(days)) => {
                let named = days.iter().any(|one| one.parse() == Ok(day.day_of_month()));
                named || (self.last_day && day.is_last_of_month())
            }
            (None, None) => true,
        }
    }
}

/// Builds the Schedule object of an action document: run at once.
pub fn argument(name: &str, description: &str, version: Jp1aoVersion) -> Value {
    let mut shown = json!({
        "name": name,
        "description": description,
        "scheduleType": "immediate",
        "scheduledStartTime": null,
        "recurrenceInterval": null,
        "recurrenceMinutes": null,
        "recurrenceDayOfWeek": null,
        "recurrenceDayOfMonth": null,
        "recurrenceLastDayOfMonth": false,
        "recurrenceStartDate": null,
        "recurrenceTime": null,
    });
    if version == Jp1aoVersion::V10
        && let Some(members) = shown.as_object_mut()
    {
        members.shift_remove("recurrenceMinutes");
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(members: Value) -> Result<StartTimes, ApiError> {
        StartTimes::read(members.as_object().unwrap())
    }

    #[test]
    fn next_start_follows_the_recurrence() {
        // A Saturday, at noon.
        let now = time_format::parse("2026-11-21T12:00:00+09:00", true).unwrap();
        for (start_times, want) in [
            (
                json!({"scheduleType": "immediate"}),
                "2026-11-21T12:00:00.000+09:00",
            ),
            (
                json!({"scheduleType": "schedule", "scheduledStartTime": "2027-01-01T00:00:00Z"}),
                "2027-01-01T09:00:00.000+09:00",
            ),
            (
                json!({"recurrenceInterval": "hourly"}),
                "2026-11-21T12:00:00.000+09:00",
            ),
            (
                json!({"recurrenceInterval": "hourly", "recurrenceMinutes": "30"}),
                "2026-11-21T12:30:00.000+09:00",
            ),
            (
                json!({"recurrenceInterval": "daily"}),
                "2026-11-22T00:00:00.000+09:00",
            ),
            (
                json!({"recurrenceInterval": "daily", "recurrenceTime": "12:00"}),
                "2026-11-21T12:00:00.000+09:00",
            ),
            (
                json!({"recurrenceInterval": "daily", "recurrenceTime": "11:59:59"}),
                "2026-11-22T11:59:59.000+09:00",
            ),
            (
                json!({"recurrenceInterval": "daily", "recurrenceStartDate": "2026-12-24"}),
                "2026-12-24T00:00:00.000+09:00",
            ),
            (
                json!({"recurrenceInterval": "weekly", "recurrenceDayOfWeek": "Monday,fri", "recurrenceTime": "03:15"}),
                "2026-11-23T03:15:00.000+09:00",
            ),
            (
                json!({"recurrenceInterval": "monthly", "recurrenceDayOfMonth": "1, 20"}),
                "2026-12-01T00:00:00.000+09:00",
            ),
            (
                json!({"recurrenceInterval": "monthly", "recurrenceLastDayOfMonth": true}),
                "2026-11-30T00:00:00.000+09:00",
            ),
        ] {
            let mut members = start_times.clone();
            if members["scheduleType"].is_null() {
                members["scheduleType"] = "recurrence".into();
            }
            let next = read(members).unwrap().next(now).unwrap();
            assert_eq!(time_format::format(next, false), want, "{start_times}");
        }
    }

    #[test]
    fn invalid_start_times_are_rejected() {
        for start_times in [
            json!({}),
            json!({"scheduleType": 1}),
            json!({"scheduleType": "never"}),
            json!({"scheduleType": "schedule"}),
            json!({"scheduleType": "schedule", "scheduledStartTime": "2027-01-01T00:00:00+0900"}),
            json!({"scheduleType": "recurrence"}),
            json!({"scheduleType": "recurrence", "recurrenceInterval": "yearly"}),
            json!({"scheduleType": "recurrence", "recurrenceInterval": "weekly"}),
            json!({"scheduleType": "recurrence", "recurrenceInterval": "weekly", "recurrenceDayOfWeek": "日"}),
            json!({"scheduleType": "recurrence", "recurrenceInterval": "monthly"}),
            json!({"scheduleType": "recurrence", "recurrenceInterval": "monthly", "recurrenceDayOfMonth": "32"}),
            json!({"scheduleType": "recurrence", "recurrenceInterval": "monthly", "recurrenceLastDayOfMonth": "yes"}),
            json!({"scheduleType": "recurrence", "recurrenceInterval": "daily", "recurrenceTime": "24:00"}),
            json!({"scheduleType": "recurrence", "recurrenceInterval": "daily", "recurrenceStartDate": "soon"}),
            json!({"scheduleType": "recurrence", "recurrenceInterval": "hourly", "recurrenceMinutes": "60"}),
        ] {
            assert!(read(start_times.clone()).is_err(), "{start_times}");
        }
    }
}
