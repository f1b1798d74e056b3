//! `kubectl pat show`: shows the details of a token, its history and its upcoming events.

use std::collections::BTreeSet;

use k8s_openapi::api::{core::v1::Secret, events::v1::Event};
use kube::{Api, api::ListParams};

use super::{
    cli::{OutputFormat, ShowArgs},
    error::Error,
    gitops,
    issuer::IssuerObject,
    output::{CommandOutput, Table, json_text, yaml_text},
    pat::PatObject,
    session::{Session, with_timeout},
    state::{credential_state, describe_end, read_terms, token_state, upcoming_events},
    terminal::{self, Paint, Tone, plain, wrap},
    time_format,
};
use crate::{
    api::{Credential, CredentialState, DeliveryState, RemoteTarget, Time},
    auth::verdict::Verdict,
};

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
    let secret = secret_exists(session, &pat).await?;
    let issuer = match session.issuer_of(&pat).await {
        Ok(Some(issuer)) => Some(describe_issuer(&issuer)),
        Ok(None) => Some("does not exist".to_owned()),
        Err(error) if error.is_api_status(403) => None,
        // The API server does not know the kind.
        Err(error) if error.is_api_status(404) => Some("does not exist".to_owned()),
        Err(error) => return Err(error),
    };
    let page = Page { pat: &pat, issuer, secret, events: events.as_deref(), now: session.now(), paint: session.paint };
    Ok(CommandOutput::success(page.render(terminal::width())))
}

/// Whether the Secret exists; `None` if the user may not know. Only its metadata is read.
async fn secret_exists(session: &Session, pat: &PatObject) -> Result<Option<bool>, Error> {
    let api: Api<Secret> = Api::namespaced(session.client.clone(), pat.namespace());
    match with_timeout(api.get_metadata_opt(&pat.secret_name())).await {
        Ok(found) => Ok(Some(found.is_some())),
        Err(error) if error.is_api_status(403) => Ok(None),
        Err(error) => Err(error),
    }
}

/// The system of an issuer, and whether it is ready.
fn describe_issuer(issuer: &IssuerObject) -> String {
    let (state, (system, url)) = (issuer.state(), issuer.system());
    let at = if url.is_empty() { String::new() } else { format!(" at {url}") };
    let ready = match &*state.ready {
        "True" => "ready".to_owned(),
        "False" => format!("not ready ({}): {}", state.reason, state.message),
        _ => state.message,
    };
    format!("{system}{at}, {ready}")
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

/// What the page shows.
struct Page<'a> {
    pat: &'a PatObject,
    /// What is known of the issuer that the object names, if the user may know.
    issuer: Option<String>,
    /// Whether the Secret exists, if the user may know.
    secret: Option<bool>,
    /// The events of the object, if the user may list them.
    events: Option<&'a [TimelineEntry]>,
    now: Time,
    paint: Paint,
}

/// The width of the names of fields, with the space after them.
const NAMES: usize = 15;

impl Page<'_> {
    /// Renders the page in lines of at most `width` characters.
    fn render(&self, width: usize) -> String {
        let Self { pat, now, paint, .. } = *self;
        let state = token_state(pat, now);
        let mut text = String::new();
        for (name, value) in self.fields() {
            let lines = wrap(&value, width.saturating_sub(NAMES)).join(&format!("\n{}", " ".repeat(NAMES)));
            // The state begins with its word.
            let lines = match lines.strip_prefix(&state.word) {
                Some(rest) if name == "State" => format!("{}{rest}", paint.tint(state.tone, &state.word)),
                _ => lines,
            };
            text.push_str(&format!("{:<NAMES$}{lines}\n", format!("{name}:")));
        }
        for (title, table) in [
            ("Credentials", credentials(pat, now)),
            ("Conditions", conditions(pat, now, &state.message)),
            ("Timeline", timeline(pat, self.events.unwrap_or_default(), now)),
        ] {
            text.push_str(&format!("\n{}\n{}", paint.tint(Tone::Title, title), table.render_within(paint, 2, width)));
        }
        if self.events.is_none() {
            let missing = "(Kubernetes events are missing: you may not list events.events.k8s.io in this namespace)";
            wrap(missing, width.saturating_sub(2)).iter().for_each(|line| text.push_str(&format!("  {line}\n")));
        }
        text
    }

    /// The fields at the top of the page: their names and values. Fields without a value are left out.
    fn fields(&self) -> Vec<(&'static str, String)> {
        let Self { pat, now, .. } = *self;
        let (spec, state) = (pat.spec(), token_state(pat, now));
        let listed = |items: &[String], none: &str| if items.is_empty() { none.to_owned() } else { items.join(", ") };
        let used = |at| time_format::format_time(at, now);
        // Verifiers of the operator do not accept tokens of other systems.
        let never_used = if pat.tokens_at_issuer() > 0 { "" } else { "never reported by a verifier" };
        let no_scopes = if spec.issuer_ref.is_some() { "none" } else { "none (the token grants no access)" };
        let fields = [
            ("Name", format!("{}/{}", pat.namespace(), pat.name())),
            ("State", format!("{}  {}", state.word, state.message).trim_end().to_owned()),
            ("Display name", spec.display_name.unwrap_or_default()),
            ("Description", spec.description.unwrap_or_default()),
            ("Owner", pat.owner()),
            ("Issuer", self.issuer()),
            ("Target", self.target()),
            ("Scopes", listed(&spec.scopes, no_scopes)),
            ("Audiences", listed(&spec.audiences, "")),
            ("Secret", self.secret()),
            ("Expires", describe_end(pat, now)),
            ("Last used", pat.last_used_at().map_or_else(|| never_used.to_owned(), used)),
            ("Managed by", gitops::find_source(&pat.object).map_or_else(String::new, |source| source.to_string())),
        ];
        fields.into_iter().filter(|(_, value)| !value.is_empty()).map(|(name, value)| (name, plain(&value))).collect()
    }

    fn issuer(&self) -> String {
        let Some(reference) = self.pat.spec().issuer_ref else { return String::new() };
        let known = self.issuer.as_ref().map_or_else(String::new, |issuer| format!(": {issuer}"));
        format!("{} {}{known}", reference.kind.as_str(), reference.name)
    }

    /// What the token is for at its issuer.
    fn target(&self) -> String {
        let spec = self.pat.spec();
        let level = spec.git_lab.as_ref().and_then(|git_lab| git_lab.access_level);
        let level = level.map_or_else(String::new, |level| format!(" as {level:?}"));
        match RemoteTarget::of(&spec).text() {
            text if !text.is_empty() => format!("{text}{level}"),
            _ if self.pat.tokens_at_issuer() > 0 => "the account of the issuer's credential".to_owned(),
            _ => String::new(),
        }
    }

    fn secret(&self) -> String {
        let status = self.pat.status();
        // A user who may not read Secrets sees what the operator recorded.
        let is_missing = self.secret.map_or(status.secret_name.is_none(), |exists| !exists);
        let missing = match status.delivery {
            _ if !is_missing => "",
            Some(DeliveryState::Delivered) => "; deleted when the token was taken",
            Some(DeliveryState::NotDelivered) => "; deleted because the token was not taken in time",
            _ => "; does not exist",
        };
        format!("{} (key {}{missing})", self.pat.secret_name(), self.pat.secret_key())
    }
}

fn credentials(pat: &PatObject, now: Time) -> Table {
    let (status, terms) = (pat.status(), read_terms(pat));
    let has_remote = pat.tokens_at_issuer() > 0;
    let last: &[_] = if has_remote { &["NAME AT ISSUER", "ID AT ISSUER"] } else { &["LAST USED"] };
    let mut table = Table::new(&[&["ID", "REVISION", "STATE", "ISSUED", "ENDS"], last].concat());
    for one in &pat.all_credentials() {
        let verdict = terms.as_ref().map(|terms| terms.judge(one, now));
        let (tone, state) = credential_state(terms.as_ref(), one, now);
        let end = one.expires_at.into_iter().chain(terms.as_ref().and_then(|terms| terms.end())).min();
        let end = match verdict {
            _ if one.state == CredentialState::Revoking => "when revoked".to_owned(),
            // It ended when it was revoked, and that time is not recorded here.
            Some(Verdict::Deleted | Verdict::Revoked | Verdict::RevokedByTime | Verdict::RevokedById) => String::new(),
            _ => end.map_or_else(|| "never".to_owned(), |end| time_format::format_relative(end, now)),
        };
        let mut row = vec![
            (Tone::Plain, one.id.to_string()),
            (Tone::Plain, one.revision.to_string()),
            (tone, state),
            (Tone::Plain, time_format::format_relative(one.issued_at, now)),
            (Tone::Plain, end),
        ];
        let used = status.usage.get(one.id.as_str()).map(|at| time_format::format_relative(*at, now));
        row.extend(match has_remote {
            true => at_issuer(one).map(|text| (Tone::Plain, text)).to_vec(),
            false => vec![(Tone::Plain, used.unwrap_or_default())],
        });
        table.add_row(row);
    }
    table
}

/// The name and the ID of a token at its issuer.
fn at_issuer(credential: &Credential) -> [String; 2] {
    let remote = credential.remote.as_ref();
    [
        remote.map(|remote| remote.name.clone()).unwrap_or_default(),
        remote.and_then(|remote| remote.id.clone()).unwrap_or_default(),
    ]
}

/// The conditions. A message that the page already shows is not repeated.
fn conditions(pat: &PatObject, now: Time, shown: &str) -> Table {
    let mut table = Table::new(&["TYPE", "STATUS", "REASON", "SINCE", "MESSAGE"]);
    let mut shown = BTreeSet::from([shown.to_owned()]);
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
            (Tone::Plain, if shown.insert(one.message.clone()) { one.message } else { "(as above)".to_owned() }),
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
