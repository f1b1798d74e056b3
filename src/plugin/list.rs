//! `kubectl pat list`: lists tokens and their state, the next event first.

use serde_json::{Value, json};

use super::{
    cli::{ListArgs, ListOutputFormat},
    error::Error,
    output::{CommandOutput, Table, json_text, yaml_text},
    pat::PatObject,
    session::Session,
    state::{TokenState, UpcomingEvent, read_terms, token_state, upcoming_events},
    terminal::Tone,
    time_format,
};
use crate::api::{CredentialState, Time};

/// Runs the command.
pub async fn run(session: &Session, args: &ListArgs) -> Result<CommandOutput, Error> {
    let namespace = (!args.all_namespaces).then_some(&*session.namespace);
    let now = session.now();
    let mut rows: Vec<ListRow> = session
        .list_pats(namespace, args.selector.as_deref())
        .await?
        .into_iter()
        .map(|pat| ListRow::new(pat, now))
        .collect();
    sort(&mut rows);
    let objects = || -> Value {
        let items: Vec<_> = rows.iter().map(|row| row.pat.printable()).collect();
        json!({"apiVersion": "v1", "kind": "List", "metadata": {}, "items": items})
    };
    let text = match args.output {
        Some(ListOutputFormat::Json) => json_text(&objects()),
        Some(ListOutputFormat::Yaml) => yaml_text(&objects()),
        Some(ListOutputFormat::Name) => {
            rows.iter().map(|row| format!("personalaccesstoken.pat-operator.io/{}\n", row.pat.name())).collect()
        }
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
        None => table(&rows, args.all_namespaces, false, now).render(session.paint, 0),
        Some(ListOutputFormat::Wide) => table(&rows, args.all_namespaces, true, now).render(session.paint, 0),
    };
    Ok(CommandOutput::success(text))
}

struct ListRow {
    pat: PatObject,
    state: TokenState,
    next: Option<UpcomingEvent>,
}

impl ListRow {
    fn new(pat: PatObject, now: Time) -> Self {
        Self { state: token_state(&pat, now), next: upcoming_events(&pat, now).into_iter().next(), pat }
    }
}

/// Sorts by the next event. Tokens without one come last, those that need action first.
fn sort(rows: &mut [ListRow]) {
    rows.sort_by(|a, b| {
        let key =
            |row: &ListRow| (row.next.is_none(), row.next.as_ref().map(|next| next.at), row.state.tone != Tone::Bad);
        let name = |row: &ListRow| (row.pat.namespace().to_owned(), row.pat.name().to_owned());
        key(a).cmp(&key(b)).then_with(|| name(a).cmp(&name(b)))
    });
}

fn table(rows: &[ListRow], with_namespace: bool, wide: bool, now: Time) -> Table {
    let mut head = Vec::new();
    if with_namespace {
        head.push("NAMESPACE");
    }
    head.extend(["NAME", "STATE", "OWNER", "NEXT", "EXPIRES", "LAST USED", "AGE"]);
    if wide {
        head.extend(["SECRET", "SCOPES", "CREDENTIALS", "MESSAGE"]);
    }
    let mut table = Table::new(&head);
    for ListRow { pat, state, next } in rows {
        let status = pat.status();
        let relative =
            |time: Option<Time>| time.map_or_else(String::new, |time| time_format::format_relative(time, now));
        let age = pat.stored.metadata.creation_timestamp.as_ref().map(|time| Time::from(time.0));
        let next = match next {
            Some(next) if next.is_overdue => (Tone::Bad, format!("{} overdue {}", next.verb, relative(Some(next.at)))),
            Some(next) => (Tone::Plain, format!("{} {}", next.verb, relative(Some(next.at)))),
            None => (Tone::Plain, String::new()),
        };
        let expires = read_terms(pat).and_then(|terms| terms.end());
        let mut row = Vec::new();
        if with_namespace {
            row.push((Tone::Plain, pat.namespace().to_owned()));
        }
        row.extend([
            (Tone::Plain, pat.name().to_owned()),
            (state.tone, state.word.clone()),
            (Tone::Plain, pat.owner()),
            next,
            (Tone::Plain, relative(expires)),
            (Tone::Plain, relative(status.last_used_at)),
            (Tone::Plain, age.map_or_else(String::new, |age| time_format::format_duration(now.since(age)))),
        ]);
        if wide {
            let credential = |one: &crate::api::Credential| match one.state {
                CredentialState::Active => one.id.to_string(),
                other => format!("{} ({})", one.id, other.as_str()),
            };
            row.extend([
                (Tone::Plain, pat.secret_name()),
                (Tone::Plain, pat.spec().scopes.join(",")),
                (Tone::Plain, status.credentials.iter().map(credential).collect::<Vec<_>>().join(",")),
                (Tone::Plain, state.message.clone()),
            ]);
        }
        table.add_row(row);
    }
    table
}
