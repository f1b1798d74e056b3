//! `kubectl pat show`: one token, its life so far, and what happens next.

use k8s_openapi::api::events::v1::Event;
use kube::{Api, api::ListParams};

use super::{
    cli::{Format, ShowArgs},
    failure::{Answer, Failure},
    list::{json_text, yaml_text},
    ownership,
    pat::Pat,
    phrase,
    session::{Session, in_time},
    state::{coming, state, terms},
    table::{PLAIN, Table},
    terminal::{Paint, Tone},
};
use crate::api::{CredentialState, Time};

/// Runs it.
pub async fn run(session: &Session, args: &ShowArgs) -> Result<Answer, Failure> {
    let pat = session.pat(&args.name).await?;
    match args.output {
        Some(Format::Json) => return Ok(Answer::good(json_text(&pat.printable()))),
        Some(Format::Yaml) => return Ok(Answer::good(yaml_text(&pat.printable()))),
        None => {}
    }
    let events = match events(session, &pat).await {
        Ok(events) => Some(events),
        // What there is to show without them is worth showing.
        Err(Failure::Api(kube::Error::Api(status))) if status.code == 403 => None,
        Err(failure) => return Err(failure),
    };
    Ok(Answer::good(page(&pat, events.as_deref(), session.now(), session.paint)))
}

/// Something that happened, or will.
struct Moment {
    at: Time,
    tone: Tone,
    what: String,
}

async fn events(session: &Session, pat: &Pat) -> Result<Vec<Moment>, Failure> {
    let api: Api<Event> = Api::namespaced(session.client.clone(), pat.namespace());
    let about = format!("regarding.kind=PersonalAccessToken,regarding.name={}", pat.name());
    let list = in_time(api.list(&ListParams::default().fields(&about))).await?;
    let uid = Some(pat.stored.uid());
    let ours =
        list.items.into_iter().filter(|event| event.regarding.as_ref().and_then(|about| about.uid.as_deref()) == uid);
    let moment = |event: Event| {
        let series = event.series.as_ref();
        let at = series.map(|series| series.last_observed_time.0).or(event.event_time.map(|time| time.0))?;
        let times = series.map_or_else(String::new, |series| format!(" ({} times)", series.count));
        let tone = if event.type_.as_deref() == Some("Warning") { Tone::Notice } else { PLAIN };
        let what = format!("{}: {}{times}", event.reason.unwrap_or_default(), event.note.unwrap_or_default());
        Some(Moment { at: at.into(), tone, what })
    };
    Ok(ours.filter_map(moment).collect())
}

fn page(pat: &Pat, events: Option<&[Moment]>, now: Time, paint: Paint) -> String {
    let (spec, status, state) = (pat.spec(), pat.status(), state(pat, now));
    let mut text = String::new();
    let mut line = |name: &str, value: String| {
        if !value.is_empty() {
            text.push_str(&format!("{:<14} {value}\n", format!("{name}:")));
        }
    };
    let plain = |text: &str| paint_free(text);
    let listed =
        |items: &[String], none: &str| if items.is_empty() { none.to_owned() } else { plain(&items.join(", ")) };
    line("Name", format!("{}/{}", pat.namespace(), pat.name()));
    line("State", format!("{}  {}", paint.tint(state.tone, &state.word), plain(&state.message)).trim_end().to_owned());
    line("Display name", plain(&spec.display_name.clone().unwrap_or_default()));
    line("Description", plain(&spec.description.clone().unwrap_or_default()));
    line("Owner", plain(&pat.owner()));
    line("Scopes", listed(&spec.scopes, "none: it may do nothing"));
    line("Audiences", listed(&spec.audiences, ""));
    line("Secret", format!("{} (key {})", pat.secret_name(), key(pat)));
    let end = terms(pat).and_then(|terms| terms.end());
    line("Expires", end.map_or_else(|| "never".to_owned(), |end| phrase::both(end, now)));
    line(
        "Last used",
        status.last_used_at.map_or_else(|| "not that a verifier told".to_owned(), |at| phrase::both(at, now)),
    );
    line("Managed by", ownership::source(&pat.object).map_or_else(String::new, |source| plain(&source.to_string())));
    heading(&mut text, paint, "Credentials");
    text.push_str(&credentials(pat, now).text(paint, 2));
    heading(&mut text, paint, "Conditions");
    text.push_str(&conditions(pat, now).text(paint, 2));
    heading(&mut text, paint, "Timeline");
    text.push_str(&timeline(pat, events.unwrap_or_default(), now).text(paint, 2));
    if events.is_none() {
        text.push_str("  (you may not list events.events.k8s.io in this namespace: what they tell is missing here)\n");
    }
    text
}

fn paint_free(text: &str) -> String {
    super::terminal::plain(text)
}

fn heading(text: &mut String, paint: Paint, title: &str) {
    text.push_str(&format!("\n{}\n", paint.tint(Tone::Title, title)));
}

/// The key of the Secret that holds the bare token.
pub fn key(pat: &Pat) -> String {
    pat.spec().secret.and_then(|secret| secret.key).unwrap_or_else(|| "token".to_owned())
}

fn credentials(pat: &Pat, now: Time) -> Table {
    let mut table = Table::new(&["ID", "REVISION", "STATE", "ISSUED", "ENDS", "LAST USED"]);
    let (status, terms) = (pat.status(), terms(pat));
    for one in &status.credentials {
        let verdict = terms.as_ref().map(|terms| terms.judge(one, now));
        let (tone, state) = match (verdict, one.state) {
            (Some(verdict), _) if !verdict.is_valid() => (Tone::Bad, format!("{verdict:?}")),
            (_, CredentialState::Active) => (Tone::Good, one.state.as_str().to_owned()),
            _ => (Tone::Notice, one.state.as_str().to_owned()),
        };
        table.row(vec![
            (PLAIN, one.id.to_string()),
            (PLAIN, one.revision.to_string()),
            (tone, state),
            (PLAIN, phrase::relative(one.issued_at, now)),
            (PLAIN, one.expires_at.map_or_else(|| "never".to_owned(), |end| phrase::relative(end, now))),
            (PLAIN, status.usage.get(one.id.as_str()).map_or_else(String::new, |at| phrase::relative(*at, now))),
        ]);
    }
    table
}

fn conditions(pat: &Pat, now: Time) -> Table {
    let mut table = Table::new(&["TYPE", "STATUS", "REASON", "SINCE", "MESSAGE"]);
    for one in pat.status().conditions {
        let is_well = (one.type_ == "Ready") == one.is_true();
        let tone = match &*one.type_ {
            _ if is_well => Tone::Good,
            "Ready" | "Stalled" => Tone::Bad,
            _ => Tone::Notice,
        };
        table.row(vec![
            (PLAIN, one.type_.to_string()),
            (tone, one.status.to_string()),
            (PLAIN, one.reason.to_string()),
            (PLAIN, phrase::span(now.since(one.last_transition_time))),
            (PLAIN, one.message),
        ]);
    }
    table
}

/// What happened, now, and what will happen, in one line of time.
fn timeline(pat: &Pat, events: &[Moment], now: Time) -> Table {
    let status = pat.status();
    let mut moments = Vec::new();
    let mut add = |at: Time, tone: Tone, what: String| moments.push(Moment { at, tone, what });
    if let Some(created) = &pat.stored.metadata.creation_timestamp {
        add(created.0.into(), PLAIN, "the object was created".to_owned());
    }
    for one in &status.credentials {
        add(one.issued_at, PLAIN, format!("token {} was issued (revision {})", one.id, one.revision));
    }
    if let Some(first) =
        status.first_issued_at.filter(|first| status.credentials.iter().all(|one| one.issued_at > *first))
    {
        add(first, PLAIN, "the first token was issued".to_owned());
    }
    for event in events {
        add(event.at, event.tone, event.what.clone());
    }
    let ahead = coming(pat, now);
    let rests = ahead.is_empty();
    for next in ahead {
        let tone = if next.overdue { Tone::Bad } else { Tone::Notice };
        let late = if next.overdue { " — overdue: is the operator running? kubectl pat doctor" } else { "" };
        add(next.at, tone, format!("{}{late}", next.what));
    }
    let nothing = if rests { "now; nothing will happen by itself" } else { "now" };
    add(now, Tone::Title, nothing.to_owned());
    moments.sort_by_key(|moment| moment.at);
    let mut table = Table::new(&["WHEN", "", "WHAT"]);
    for moment in moments {
        let when = if moment.at == now { String::from("now") } else { phrase::relative(moment.at, now) };
        table.row(vec![(PLAIN, moment.at.floor_second().to_string()), (PLAIN, when), (moment.tone, moment.what)]);
    }
    table
}
