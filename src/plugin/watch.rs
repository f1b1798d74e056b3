//! `kubectl pat list --watch`: prints the tokens, and then each change of one, until the command is interrupted.

use std::{
    collections::{BTreeMap, BTreeSet},
    io::ErrorKind,
};

use futures::{StreamExt, pin_mut};
use kube::{
    api::DynamicObject,
    core::TypeMeta,
    runtime::{
        WatchStreamExt,
        watcher::{self, Event},
    },
};

use super::{
    cli::{ListArgs, ListOutputFormat},
    error::Error,
    list::{ListRow, object_name, table},
    output::{CommandOutput, json_text, write_stdout, yaml_text},
    pat::PatObject,
    session::Session,
    terminal::plain,
};
use crate::{api::PersonalAccessToken, service::explain_api_error};

/// The namespace and the name of an object.
type Key = (String, String);

fn key(pat: &PatObject) -> Key {
    (pat.namespace().to_owned(), pat.name().to_owned())
}

/// Prints `rows`, and then changes, until stdout is closed.
///
/// # Errors
/// The user may not watch, or stdout cannot be written.
pub async fn follow(session: &Session, args: &ListArgs, rows: Vec<ListRow>) -> Result<CommandOutput, Error> {
    let mut seen: BTreeMap<Key, PatObject> = rows.iter().map(|row| (key(&row.pat), row.pat.clone())).collect();
    let mut printer = Printer { session, args, widths: Vec::new() };
    let mut is_open = printer.print(&rows)?;
    let config = args.selector.iter().fold(watcher::Config::default(), |config, selector| config.labels(selector));
    let namespace = (!args.all_namespaces).then_some(&*session.namespace);
    let events = watcher::watcher(session.pats(namespace), config).default_backoff();
    pin_mut!(events);
    let mut listed = BTreeSet::new();
    while is_open {
        let Some(event) = events.next().await else { break };
        let rows = match event {
            Ok(Event::Init) => {
                listed.clear();
                continue;
            }
            Ok(Event::InitApply(object)) => {
                let pat = parse(object)?;
                listed.insert(key(&pat));
                changed(session, &mut seen, pat)
            }
            Ok(Event::Apply(object)) => changed(session, &mut seen, parse(object)?),
            Ok(Event::Delete(object)) => {
                let pat = parse(object)?;
                seen.remove(&key(&pat));
                vec![ListRow::deleted(pat)]
            }
            // What is not listed again was deleted while the watch was interrupted.
            Ok(Event::InitDone) => {
                let gone: Vec<_> = seen.keys().filter(|key| !listed.contains(*key)).cloned().collect();
                gone.iter().filter_map(|key| seen.remove(key)).map(ListRow::deleted).collect()
            }
            Err(error) => {
                tell(error)?;
                continue;
            }
        };
        is_open = rows.is_empty() || printer.print(&rows)?;
    }
    Ok(CommandOutput::success(""))
}

/// Parses an object. Items of a list have no apiVersion and kind.
fn parse(mut object: DynamicObject) -> Result<PatObject, Error> {
    object.types.get_or_insert_with(TypeMeta::resource::<PersonalAccessToken>);
    PatObject::parse(object)
}

/// Returns the row of an object, unless it was printed in this version.
fn changed(session: &Session, seen: &mut BTreeMap<Key, PatObject>, pat: PatObject) -> Vec<ListRow> {
    let before = seen.insert(key(&pat), pat.clone());
    let is_same = before.is_some_and(|before| before.stored.resource_version() == pat.stored.resource_version());
    if is_same { Vec::new() } else { vec![ListRow::new(pat, session.now())] }
}

/// Tells that the watch is interrupted. The watcher tries again, except if the API server refuses it.
fn tell(error: watcher::Error) -> Result<(), Error> {
    match error {
        watcher::Error::WatchFailed(error)
        | watcher::Error::WatchStartFailed(error)
        | watcher::Error::InitialListFailed(error) => {
            let error = Error::Api(error);
            if [401, 403, 404].into_iter().any(|code| error.is_api_status(code)) {
                return Err(error);
            }
            eprintln!("note: the watch is interrupted, and starts again: {}", plain(&error.to_string()));
        }
        // After some minutes, the API server no longer knows the version that the watch has seen. The watcher lists again.
        watcher::Error::WatchError(status) if status.code == 410 => {}
        watcher::Error::WatchError(status) => {
            let error = explain_api_error(&kube::Error::Api(status));
            eprintln!("note: the watch is interrupted, and starts again: {}", plain(&error));
        }
        error @ watcher::Error::NoResourceVersion => return Err(Error::Refused(error.to_string())),
    }
    Ok(())
}

/// Prints rows as they come.
struct Printer<'a> {
    session: &'a Session,
    args: &'a ListArgs,
    /// The widths of the columns so far; empty before the header.
    widths: Vec<usize>,
}

impl Printer<'_> {
    /// Prints rows. Returns whether stdout is still open.
    fn print(&mut self, rows: &[ListRow]) -> Result<bool, Error> {
        let text = match self.args.output {
            Some(ListOutputFormat::Json) => rows.iter().map(|row| json_text(&row.pat.printable())).collect(),
            Some(ListOutputFormat::Yaml) => {
                rows.iter().map(|row| format!("---\n{}", yaml_text(&row.pat.printable()))).collect()
            }
            Some(ListOutputFormat::Name) => rows.iter().map(object_name).collect(),
            None | Some(ListOutputFormat::Wide) if rows.is_empty() => String::new(),
            None | Some(ListOutputFormat::Wide) => {
                let table = table(rows, self.args, self.session.now());
                let is_first = self.widths.is_empty();
                self.widths = table.widths(&self.widths);
                let paint = self.session.paint;
                if is_first { table.render(paint, 0) } else { table.render_rows(paint, &self.widths) }
            }
        };
        match write_stdout(&text) {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(false),
            Err(error) => Err(Error::io("stdout")(error)),
        }
    }
}
