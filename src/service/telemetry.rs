//! Logs on stderr, as text or JSON. Response bodies of the API server are never logged.

use std::{fmt, io, io::IsTerminal, str::FromStr};

use tracing::{Metadata, Subscriber};
use tracing_subscriber::{
    EnvFilter, Layer, Registry,
    filter::{LevelFilter, filter_fn},
    fmt::{MakeWriter, layer},
    layer::SubscriberExt,
    util::{SubscriberInitExt, TryInitError},
};

/// The default filter. kube logs each failed request as an error, but callers report errors with more context.
pub const DEFAULT_FILTER: &str =
    "info,kube_client=off,kube_runtime=warn,hyper=warn,hyper_util=warn,rustls=warn,tower=warn";

/// The format of log lines.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum LogFormat {
    /// Text, coloured on a terminal unless NO_COLOR is set
    #[default]
    Text,
    /// One JSON object per line
    Json,
}

/// A log filter: a level, or directives such as `info,pat_operator::controller=debug`. It refines [`DEFAULT_FILTER`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogFilter(String);

/// Text that is not a log filter.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("write error, warn, info, debug or trace, or levels by module, such as info,pat_operator::controller=debug")]
pub struct InvalidLogFilter;

impl LogFilter {
    fn env_filter(&self) -> Result<EnvFilter, InvalidLogFilter> {
        // The last directive for a module wins.
        EnvFilter::builder().parse(format!("{DEFAULT_FILTER},{}", self.0)).map_err(|_| InvalidLogFilter)
    }
}

impl FromStr for LogFilter {
    type Err = InvalidLogFilter;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        // A bare word that is not a level would be read as a module name and hide everything else.
        let is_level = |word: &str| ["off", "error", "warn", "info", "debug", "trace"].contains(&word);
        let plain = |word: &str| word.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
        if text.split(',').any(|part| plain(part) && !is_level(&part.to_ascii_lowercase())) {
            return Err(InvalidLogFilter);
        }
        let filter = Self(text.to_owned());
        filter.env_filter().map(|_| filter)
    }
}

impl Default for LogFilter {
    fn default() -> Self {
        Self("info".to_owned())
    }
}

impl fmt::Display for LogFilter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Why logging cannot start.
#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    /// The filter is invalid.
    #[error(transparent)]
    Filter(#[from] InvalidLogFilter),
    /// A subscriber is set already.
    #[error("logging is set up already")]
    AlreadySet(#[from] TryInitError),
}

/// Starts logging to stderr for the whole process.
///
/// # Errors
/// It was called before.
pub fn init(format: LogFormat, filter: &LogFilter) -> Result<(), TelemetryError> {
    let colours = io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    Ok(subscriber(format, filter, colours, io::stderr)?.try_init()?)
}

fn subscriber<W>(
    format: LogFormat,
    filter: &LogFilter,
    colours: bool,
    writer: W,
) -> Result<impl Subscriber + Send + Sync, InvalidLogFilter>
where
    W: for<'w> MakeWriter<'w> + Send + Sync + 'static,
{
    let written: Box<dyn Layer<Registry> + Send + Sync> = match format {
        LogFormat::Text => layer().with_ansi(colours).with_writer(writer).boxed(),
        LogFormat::Json => layer().json().flatten_event(true).with_writer(writer).boxed(),
    };
    let filter = filter.env_filter()?;
    // The hint keeps the level hint of the other filter effective, so that disabled lines cost nothing.
    let harmless = filter_fn(is_harmless).with_max_level_hint(LevelFilter::TRACE);
    let wanted = tracing_subscriber::filter::FilterExt::and(filter, harmless);
    Ok(tracing_subscriber::registry().with(written.with_filter(wanted)))
}

/// kube's client logs the whole body of a response that it cannot decode, which may be a Secret.
fn is_harmless(metadata: &Metadata<'_>) -> bool {
    metadata.target() != "kube_client::client"
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    #[derive(Clone, Default)]
    struct LogLines(Arc<Mutex<Vec<u8>>>);

    impl io::Write for LogLines {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn logged(format: LogFormat, filter: &str, log: impl FnOnce()) -> String {
        let lines = LogLines::default();
        let writer = lines.clone();
        let subscriber = subscriber(format, &filter.parse().unwrap(), false, move || writer.clone()).unwrap();
        tracing::subscriber::with_default(subscriber, log);
        String::from_utf8(lines.0.lock().unwrap().clone()).unwrap()
    }

    #[test]
    fn a_directive_overrides_the_default_filter() {
        let log = || {
            tracing::debug!("ours");
            tracing::error!(target: "kube_client::client::builder", "kube's");
        };
        assert_eq!(logged(LogFormat::Text, "info", log), "");
        let debug = logged(LogFormat::Text, "debug", log);
        assert!(debug.contains("ours") && !debug.contains("kube's"), "{debug}");
        let both = logged(LogFormat::Text, "debug,kube_client=error", log);
        assert!(both.contains("ours") && both.contains("kube's"), "{both}");
    }

    #[test]
    fn undecodable_bodies_are_never_logged() {
        let log = || tracing::warn!(target: "kube_client::client", "a whole Secret");
        assert_eq!(logged(LogFormat::Text, "trace,kube_client=trace,kube_client::client=trace", log), "");
    }

    #[test]
    fn json_is_one_flat_object_per_line() {
        let json = logged(LogFormat::Json, "info", || tracing::info!(answer = 42, "a message"));
        assert!(json.starts_with('{') && json.ends_with("}\n") && json.lines().count() == 1, "{json}");
        assert!(json.contains(r#""answer":42"#) && json.contains(r#""message":"a message""#), "{json}");
    }

    #[test]
    fn invalid_filters_are_refused() {
        for text in ["", "loud", "info,", "info,loud", "pat_operator=loud", "a=b=c"] {
            assert!(text.parse::<LogFilter>().is_err(), "{text}");
        }
        for text in ["info", "DEBUG", "off", "info,pat_operator::controller=debug", "kube_client=trace"] {
            assert!(text.parse::<LogFilter>().is_ok(), "{text}");
        }
    }
}
