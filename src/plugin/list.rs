//! `kubectl pat list`: tokens with their state, what ends next first.

use serde_json::{Value, json};

use super::{
    cli::{ListArgs, ListFormat},
    failure::{Answer, Failure},
    pat::Pat,
    phrase,
    session::Session,
    state::{Coming, State, coming, state},
    table::{PLAIN, Table},
    terminal::Tone,
};
use crate::api::{CredentialState, Time};

/// Runs it.
pub async fn run(session: &Session, args: &ListArgs) -> Result<Answer, Failure> {
    let namespace = (!args.all_namespaces).then_some(&*session.namespace);
    let now = session.now();
    let mut rows: Vec<Row> =
        session.list(namespace, args.selector.as_deref()).await?.into_iter().map(|pat| Row::of(pat, now)).collect();
    sort(&mut rows);
    let objects = || -> Value {
        let items: Vec<_> = rows.iter().map(|row| row.pat.printable()).collect();
        json!({"apiVersion": "v1", "kind": "List", "metadata": {}, "items": items})
    };
    let text = match args.output {
        Some(ListFormat::Json) => json_text(&objects()),
        Some(ListFormat::Yaml) => yaml_text(&objects()),
        Some(ListFormat::Name) => {
            rows.iter().map(|row| format!("personalaccesstoken.pat-operator.io/{}\n", row.pat.name())).collect()
        }
        None | Some(ListFormat::Wide) if rows.is_empty() => {
            let place = namespace.map_or("in this cluster".to_owned(), |name| format!("in namespace {name}"));
            let hint =
                if args.all_namespaces { "kubectl pat create --help makes one" } else { "-A looks in all namespaces" };
            eprintln!("no PersonalAccessTokens found {place}; {hint}");
            String::new()
        }
        None => table(&rows, args.all_namespaces, false, now).text(session.paint, 0),
        Some(ListFormat::Wide) => table(&rows, args.all_namespaces, true, now).text(session.paint, 0),
    };
    Ok(Answer::good(text))
}

/// A value as people and programs read it.
pub fn json_text(value: &Value) -> String {
    format!("{value:#}\n")
}

/// A value as YAML.
pub fn yaml_text(value: &Value) -> String {
    serde_yaml::to_string(value).expect("JSON is always YAML")
}

struct Row {
    pat: Pat,
    state: State,
    next: Option<Coming>,
}

impl Row {
    fn of(pat: Pat, now: Time) -> Self {
        Self { state: state(&pat, now), next: coming(&pat, now).into_iter().next(), pat }
    }
}

/// What ends next comes first; then what needs a person, then the rest, by name.
fn sort(rows: &mut [Row]) {
    rows.sort_by(|a, b| {
        let key = |row: &Row| (row.next.is_none(), row.next.as_ref().map(|next| next.at), row.state.tone != Tone::Bad);
        let name = |row: &Row| (row.pat.namespace().to_owned(), row.pat.name().to_owned());
        key(a).cmp(&key(b)).then_with(|| name(a).cmp(&name(b)))
    });
}

fn table(rows: &[Row], with_namespace: bool, wide: bool, now: Time) -> Table {
    let mut head = Vec::new();
    if with_namespace {
        head.push("NAMESPACE");
    }
    head.extend(["NAME", "STATE", "OWNER", "NEXT", "EXPIRES", "LAST USED", "AGE"]);
    if wide {
        head.extend(["SECRET", "SCOPES", "CREDENTIALS", "MESSAGE"]);
    }
    let mut table = Table::new(&head);
    for Row { pat, state, next } in rows {
        let status = pat.status();
        let relative = |time: Option<Time>| time.map_or_else(String::new, |time| phrase::relative(time, now));
        let age = pat.stored.metadata.creation_timestamp.as_ref().map(|time| Time::from(time.0));
        let next = match next {
            Some(next) if next.overdue => (Tone::Bad, format!("{} overdue {}", next.word, relative(Some(next.at)))),
            Some(next) => (PLAIN, format!("{} {}", next.word, relative(Some(next.at)))),
            None => (PLAIN, String::new()),
        };
        let expires = super::state::terms(pat).and_then(|terms| terms.end());
        let mut row = Vec::new();
        if with_namespace {
            row.push((PLAIN, pat.namespace().to_owned()));
        }
        row.extend([
            (PLAIN, pat.name().to_owned()),
            (state.tone, state.word.clone()),
            (PLAIN, pat.owner()),
            next,
            (PLAIN, relative(expires)),
            (PLAIN, relative(status.last_used_at)),
            (PLAIN, age.map_or_else(String::new, |age| phrase::span(now.since(age)))),
        ]);
        if wide {
            let credential = |one: &crate::api::Credential| match one.state {
                CredentialState::Active => one.id.to_string(),
                other => format!("{} ({})", one.id, other.as_str()),
            };
            row.extend([
                (PLAIN, pat.secret_name()),
                (PLAIN, pat.spec().scopes.join(",")),
                (PLAIN, status.credentials.iter().map(credential).collect::<Vec<_>>().join(",")),
                (PLAIN, state.message.clone()),
            ]);
        }
        table.row(row);
    }
    table
}
