//! `kubectl pat list`: lists tokens and their state, the next event first.

use super::{
    cli::{ListArgs, ListOutputFormat},
    error::Error,
    output::{CommandOutput, Table, json_text, list_object, yaml_text},
    pat::PatObject,
    session::Session,
    sort::sort,
    state::{TokenState, UpcomingEvent, end, token_state, upcoming_events},
    terminal::Tone,
    time_format, watch,
};
use crate::api::{CredentialState, Time};

/// Runs the command.
pub async fn run(session: &Session, args: &ListArgs) -> Result<CommandOutput, Error> {
    let namespace = (!args.all_namespaces).then_some(&*session.namespace);
    let now = session.now();
    let pats = session.list_pats(namespace, args.selector.as_deref()).await?;
    let rows = sort(pats.into_iter().map(|pat| ListRow::new(pat, now)).collect(), &args.sort_by)?;
    if args.watch {
        return watch::follow(session, args, rows).await;
    }
    let objects = || list_object(rows.iter().map(|row| row.pat.printable()));
    let text = match args.output {
        Some(ListOutputFormat::Json) => json_text(&objects()),
        Some(ListOutputFormat::Yaml) => yaml_text(&objects()),
        Some(ListOutputFormat::Name) => rows.iter().map(object_name).collect(),
        None | Some(ListOutputFormat::Wide) if rows.is_empty() => {
            let scope = namespace.map_or("in this cluster".to_owned(), |name| format!("in namespace {name}"));
            let hint = if args.all_namespaces {
                "create one with `kubectl pat create`"
            } else {
                "use -A to list all namespaces"
            };
            eprintln!("no PersonalAccessTokens found {scope}; {hint}");
            String::new()
        }
        None | Some(ListOutputFormat::Wide) => table(&rows, args, now).render(session.paint, 0),
    };
    Ok(CommandOutput::success(text))
}

/// The line of an object with `-o name`.
pub fn object_name(row: &ListRow) -> String {
    format!("personalaccesstoken.pat-operator.io/{}\n", row.pat.name())
}

/// One token of the list.
pub struct ListRow {
    /// The object.
    pub pat: PatObject,
    /// Its state.
    pub state: TokenState,
    /// What happens to it next.
    pub next: Option<UpcomingEvent>,
    /// When it expires, unless it is dead already.
    pub end: Option<Time>,
}

impl ListRow {
    /// The row of an object.
    pub fn new(pat: PatObject, now: Time) -> Self {
        let next = upcoming_events(&pat, now).into_iter().next();
        Self { state: token_state(&pat, now), next, end: end(&pat), pat }
    }

    /// The row of an object that does not exist any more.
    pub fn deleted(pat: PatObject) -> Self {
        let state = TokenState { word: "Deleted".to_owned(), tone: Tone::Muted, message: String::new() };
        Self { state, next: None, end: None, pat }
    }
}

/// The table of rows, with the columns that the flags ask for.
pub fn table(rows: &[ListRow], args: &ListArgs, now: Time) -> Table {
    let (with_namespace, wide) = (args.all_namespaces, args.output == Some(ListOutputFormat::Wide));
    let mut head = Vec::new();
    if with_namespace {
        head.push("NAMESPACE");
    }
    head.extend(["NAME", "STATE", "OWNER", "NEXT", "EXPIRES", "LAST USED", "AGE"]);
    if wide {
        head.extend(["SECRET", "SCOPES", "CREDENTIALS", "MESSAGE"]);
    }
    let mut table = Table::new(&head);
    for ListRow { pat, state, next, end } in rows {
        let status = pat.status();
        let relative =
            |time: Option<Time>| time.map_or_else(String::new, |time| time_format::format_relative(time, now));
        let age = pat.stored.metadata.creation_timestamp.as_ref().map(|time| Time::from(time.0));
        let next = match next {
            Some(next) if next.is_overdue => (Tone::Bad, format!("{} overdue {}", next.verb, relative(Some(next.at)))),
            Some(next) => (Tone::Plain, format!("{} {}", next.verb, relative(Some(next.at)))),
            None => (Tone::Plain, String::new()),
        };
        let mut row = Vec::new();
        if with_namespace {
            row.push((Tone::Plain, pat.namespace().to_owned()));
        }
        row.extend([
            (Tone::Plain, pat.name().to_owned()),
            (state.tone, state.word.clone()),
            (Tone::Plain, pat.owner()),
            next,
            (Tone::Plain, relative(*end)),
            (Tone::Plain, relative(pat.last_used_at())),
            (Tone::Plain, age.map_or_else(String::new, |age| time_format::format_duration(now.since(age)))),
        ]);
        if wide {
            let credential = |one: &crate::api::Credential| match one.state {
                CredentialState::Active => one.id.to_string(),
                other => format!("{} ({})", one.id, other.as_str()),
            };
            row.extend([
                (Tone::Plain, status.secret_name.clone().unwrap_or_default()),
                (Tone::Plain, pat.spec().scopes.join(",")),
                (Tone::Plain, status.credentials.iter().map(credential).collect::<Vec<_>>().join(",")),
                (Tone::Plain, state.message.clone()),
            ]);
        }
        table.add_row(row);
    }
    table
}
