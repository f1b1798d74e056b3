//! `kubectl pat show`: shows the details of a token, its history and its upcoming events.

use k8s_openapi::api::events::v1::Event;
use kube::{Api, api::ListParams};

use super::{
    cli::{OutputFormat, ShowArgs},
    error::Error,
    gitops,
    output::{CommandOutput, Table, json_text, yaml_text},
    pat::PatObject,
    session::{Session, with_timeout},
    state::{read_terms, token_state, upcoming_events},
    terminal::{Paint, Tone, plain},
    time_format,
};
use crate::api::{CredentialState, Time};

/// Runs the command.
pub async fn run(session: &Session, args: &ShowArgs) -> Result<CommandOutput, Error> {
    let pat = session.get_pat(&args.name).await?;
    match args.output {
        Some(OutputFormat::Json) => return Ok(CommandOutput::success(json_text(&pat.printable()))),
        Some(OutputFormat::Yaml) => return Ok(CommandOutput::success(yaml_text(&pat.printable()))),
        None => {}
    }
    let events = match list_events(session, &pat).await {
        Ok(events) => Some(events),
        // The rest of the page is still useful.
        Err(error) if error.is_api_status(403) => None,
        Err(error) => return Err(error),
    };
    Ok(CommandOutput::success(page(&pat, events.as_deref(), session.now(), session.paint)))
}

/// A past or upcoming event.
struct TimelineEntry {
    at: Time,
    tone: Tone,
    what: String,
}

async fn list_events(session: &Session, pat: &PatObject) -> Result<Vec<TimelineEntry>, Error> {
    let api: Api<Event> = Api::namespaced(session.client.clone(), pat.namespace());
    let about = format!("regarding.kind=PersonalAccessToken,regarding.name={}", pat.name());
    let list = with_timeout(api.list(&ListParams::default().fields(&about))).await?;
    let uid = Some(pat.stored.uid());
    let ours =
        list.items.into_iter().filter(|event| event.regarding.as_ref().and_then(|about| about.uid.as_deref()) == uid);
    let to_entry = |event: Event| {
        let series = event.series.as_ref();
        let at = series.map(|series| series.last_observed_time.0).or(event.event_time.map(|time| time.0))?;
        let times = series.map_or_else(String::new, |series| format!(" ({} times)", series.count));
        let tone = if event.type_.as_deref() == Some("Warning") { Tone::Warning } else { Tone::Plain };
        let what = format!("{}: {}{times}", event.reason.unwrap_or_default(), event.note.unwrap_or_default());
        Some(TimelineEntry { at: at.into(), tone, what })
    };
    Ok(ours.filter_map(to_entry).collect())
}

fn page(pat: &PatObject, events: Option<&[TimelineEntry]>, now: Time, paint: Paint) -> String {
    let (spec, status, state) = (pat.spec(), pat.status(), token_state(pat, now));
    let mut text = String::new();
    let mut line = |name: &str, value: String| {
        if !value.is_empty() {
            text.push_str(&format!("{:<14} {value}\n", format!("{name}:")));
        }
    };
    let listed =
        |items: &[String], none: &str| if items.is_empty() { none.to_owned() } else { plain(&items.join(", ")) };
    line("Name", format!("{}/{}", pat.namespace(), pat.name()));
    line("State", format!("{}  {}", paint.tint(state.tone, &state.word), plain(&state.message)).trim_end().to_owned());
    line("Display name", plain(&spec.display_name.clone().unwrap_or_default()));
    line("Description", plain(&spec.description.clone().unwrap_or_default()));
    line("Owner", plain(&pat.owner()));
    line("Scopes", listed(&spec.scopes, "none (the token grants no access)"));
    line("Audiences", listed(&spec.audiences, ""));
    line("Secret", format!("{} (key {})", pat.secret_name(), pat.secret_key()));
    let end = read_terms(pat).and_then(|terms| terms.end());
    line("Expires", end.map_or_else(|| "never".to_owned(), |end| time_format::format_time(end, now)));
    line(
        "Last used",
        status
            .last_used_at
            .map_or_else(|| "never reported by a verifier".to_owned(), |at| time_format::format_time(at, now)),
    );
    line("Managed by", gitops::find_source(&pat.object).map_or_else(String::new, |source| plain(&source.to_string())));
    heading(&mut text, paint, "Credentials");
    text.push_str(&credentials(pat, now).render(paint, 2));
    heading(&mut text, paint, "Conditions");
    text.push_str(&conditions(pat, now).render(paint, 2));
    heading(&mut text, paint, "Timeline");
    text.push_str(&timeline(pat, events.unwrap_or_default(), now).render(paint, 2));
    if events.is_none() {
        text.push_str("  (Kubernetes events are missing: you may not list events.events.k8s.io in this namespace)\n");
    }
    text
}

fn heading(text: &mut String, paint: Paint, title: &str) {
    text.push_str(&format!("\n{}\n", paint.tint(Tone::Title, title)));
}

fn credentials(pat: &PatObject, now: Time) -> Table {
    let mut table = Table::new(&["ID", "REVISION", "STATE", "ISSUED", "ENDS", "LAST USED"]);
    let (status, terms) = (pat.status(), read_terms(pat));
    for one in &status.credentials {
        let verdict = terms.as_ref().map(|terms| terms.judge(one, now));
        let (tone, state) = match (verdict, one.state) {
            (Some(verdict), _) if !verdict.is_valid() => (Tone::Bad, format!("{verdict:?}")),
            (_, CredentialState::Active) => (Tone::Good, one.state.as_str().to_owned()),
            _ => (Tone::Warning, one.state.as_str().to_owned()),
        };
        table.add_row(vec![
            (Tone::Plain, one.id.to_string()),
            (Tone::Plain, one.revision.to_string()),
            (tone, state),
            (Tone::Plain, time_format::format_relative(one.issued_at, now)),
            (
                Tone::Plain,
                one.expires_at.map_or_else(|| "never".to_owned(), |end| time_format::format_relative(end, now)),
            ),
            (
                Tone::Plain,
                status.usage.get(one.id.as_str()).map_or_else(String::new, |at| time_format::format_relative(*at, now)),
            ),
        ]);
    }
    table
}

fn conditions(pat: &PatObject, now: Time) -> Table {
    let mut table = Table::new(&["TYPE", "STATUS", "REASON", "SINCE", "MESSAGE"]);
    for one in pat.status().conditions {
        let is_good = (one.type_ == "Ready") == one.is_true();
        let tone = match &*one.type_ {
            _ if is_good => Tone::Good,
            "Ready" | "Stalled" => Tone::Bad,
            _ => Tone::Warning,
        };
        table.add_row(vec![
            (Tone::Plain, one.type_.to_string()),
            (tone, one.status.to_string()),
            (Tone::Plain, one.reason.to_string()),
            (Tone::Plain, time_format::format_duration(now.since(one.last_transition_time))),
            (Tone::Plain, one.message),
        ]);
    }
    table
}

/// The history, the current time and the upcoming events in one table.
fn timeline(pat: &PatObject, events: &[TimelineEntry], now: Time) -> Table {
    let status = pat.status();
    let mut entries = Vec::new();
    let mut add = |at: Time, tone: Tone, what: String| entries.push(TimelineEntry { at, tone, what });
    if let Some(created) = &pat.stored.metadata.creation_timestamp {
        add(created.0.into(), Tone::Plain, "object created".to_owned());
    }
    for one in &status.credentials {
        add(one.issued_at, Tone::Plain, format!("token {} issued (revision {})", one.id, one.revision));
    }
    if let Some(first) =
        status.first_issued_at.filter(|first| status.credentials.iter().all(|one| one.issued_at > *first))
    {
        add(first, Tone::Plain, "first token issued".to_owned());
    }
    for event in events {
        add(event.at, event.tone, event.what.clone());
    }
    let upcoming = upcoming_events(pat, now);
    let is_last = upcoming.is_empty();
    for next in upcoming {
        let tone = if next.is_overdue { Tone::Bad } else { Tone::Warning };
        let late = if next.is_overdue { " (overdue: check the operator with `kubectl pat doctor`)" } else { "" };
        add(next.at, tone, format!("{}{late}", next.what));
    }
    add(now, Tone::Plain, if is_last { "now (no upcoming events)" } else { "now" }.to_owned());
    entries.sort_by_key(|entry| entry.at);
    let mut table = Table::new(&["WHEN", "", "WHAT"]);
    for entry in entries {
        let when = if entry.at == now { String::from("now") } else { time_format::format_relative(entry.at, now) };
        table.add_row(vec![
            (Tone::Plain, entry.at.floor_second().to_string()),
            (Tone::Plain, when),
            (entry.tone, entry.what),
        ]);
    }
    table
}
