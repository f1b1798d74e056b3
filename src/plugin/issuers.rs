//! `kubectl pat issuers`: lists the systems that issue tokens, and whether each is ready.

use super::{
    cli::ListOutputFormat,
    error::Error,
    issuer::IssuerObject,
    output::{CommandOutput, Table, json_text, list_object, yaml_text},
    session::Session,
    terminal::{self, Tone},
    time_format,
};
use crate::api::{IssuerKind, Time, crd};
use clap::Args;

/// Flags of `issuers`.
#[derive(Clone, Debug, Args)]
#[command(after_long_help = "\
An issuer is a system such as GitLab, Gitea or Argo CD. A PersonalAccessToken names it in spec.issuerRef. The command lists the \
ClusterTokenIssuers, which all namespaces may use if the policy permits it, and the TokenIssuers of your namespace. It shows what the \
controller wrote to their status, and contacts no issuer itself.

READY is True if the issuer answers and accepts the credential. The reason IssuerUnavailable means that a call failed and the controller \
tries again. IssuerNotReady means that a person must act, and MESSAGE says what to do. Tokens keep working meanwhile. Only their rotation \
and revocation wait.

Examples:
  kubectl pat issuers
  kubectl pat issuers -A -o wide
  kubectl pat issuers -o json | jq -r '.items[].status.url'")]
pub struct IssuersArgs {
    /// List the TokenIssuers of all namespaces
    #[arg(short = 'A', long, conflicts_with = "namespace")]
    pub all_namespaces: bool,

    /// Output format; defaults to a table
    #[arg(short, long, value_name = "FORMAT")]
    pub output: Option<ListOutputFormat>,
}

/// Runs the command.
pub async fn run(session: &Session, args: &IssuersArgs) -> Result<CommandOutput, Error> {
    let namespace = (!args.all_namespaces).then_some(&*session.namespace);
    let mut issuers = Vec::new();
    let mut refused = Vec::new();
    for kind in IssuerKind::ALL {
        match session.list_issuers(kind, namespace).await {
            Ok(found) => issuers.extend(found),
            // The other kind is still useful.
            Err(error) if error.is_api_status(403) => refused.push(error),
            Err(error) if error.is_api_status(404) => {
                return Err(Error::NotFound(crd::how_to_install(match kind {
                    IssuerKind::TokenIssuer => crd::ISSUER_NAME,
                    IssuerKind::ClusterTokenIssuer => crd::CLUSTER_ISSUER_NAME,
                })));
            }
            Err(error) => return Err(error),
        }
    }
    if refused.len() == 2 {
        return Err(refused.remove(0));
    }
    refused.iter().for_each(|error| eprintln!("note: {}", terminal::plain(&error.to_string())));
    issuers.sort_by(|a, b| (a.namespace(), a.name()).cmp(&(b.namespace(), b.name())));
    let objects = || list_object(issuers.iter().map(IssuerObject::printable));
    let text = match args.output {
        Some(ListOutputFormat::Json) => json_text(&objects()),
        Some(ListOutputFormat::Yaml) => yaml_text(&objects()),
        Some(ListOutputFormat::Name) => issuers.iter().map(object_name).collect(),
        None | Some(ListOutputFormat::Wide) if issuers.is_empty() => {
            let hint = if args.all_namespaces {
                "docs/issuers.md shows how to describe a system"
            } else {
                "use -A to list the TokenIssuers of all namespaces"
            };
            eprintln!("no issuers found; {hint}");
            String::new()
        }
        None => table(&issuers, false, session.now()).render_within(session.paint, 0, terminal::width()),
        Some(ListOutputFormat::Wide) => table(&issuers, true, session.now()).render(session.paint, 0),
    };
    Ok(CommandOutput::success(text))
}

fn object_name(issuer: &IssuerObject) -> String {
    format!("{}.pat-operator.io/{}\n", issuer.kind.as_str().to_ascii_lowercase(), issuer.name())
}

/// The table of issuers. The last column is there if an issuer has a message.
fn table(issuers: &[IssuerObject], wide: bool, now: Time) -> Table {
    let has_messages = issuers.iter().any(|issuer| !issuer.state().message.is_empty());
    let mut head = vec!["KIND", "NAMESPACE", "NAME", "READY", "REASON", "SYSTEM", "URL", "TOKENS", "LAST POLL"];
    if wide {
        head.extend(["INTERVAL", "VERSION", "ACCOUNT", "AGE"]);
    }
    if has_messages {
        head.push("MESSAGE");
    }
    let mut table = Table::new(&head);
    for issuer in issuers {
        let (state, status, (system, url)) = (issuer.state(), issuer.status(), issuer.system());
        let text = |text: String| (Tone::Plain, text);
        let mut row = vec![
            text(issuer.kind.as_str().to_owned()),
            text(issuer.namespace().to_owned()),
            text(issuer.name().to_owned()),
            (state.tone, state.ready),
            text(state.reason),
            text(system),
            text(url),
            text(status.tokens.map(|tokens| tokens.to_string()).unwrap_or_default()),
            text(status.last_polled_at.map(|at| time_format::format_relative(at, now)).unwrap_or_default()),
        ];
        if wide {
            let interval = issuer.stored.spec.as_ref().ok().and_then(|spec| spec.poll_interval.as_ref());
            let created = issuer.stored.metadata.creation_timestamp.as_ref().map(|time| Time::from(time.0));
            row.extend([
                text(interval.map(ToString::to_string).unwrap_or_default()),
                text(status.server_version.unwrap_or_default()),
                text(status.account.unwrap_or_default()),
                text(created.map(|created| time_format::format_duration(now.since(created))).unwrap_or_default()),
            ]);
        }
        if has_messages {
            row.push(text(state.message));
        }
        table.add_row(row);
    }
    table
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::plugin::terminal::Paint;

    const NOW: &str = "2030-01-01T00:10:00Z";

    fn issuer(kind: IssuerKind, namespace: Option<&str>, spec: Value, status: Value) -> IssuerObject {
        let object = json!({
            "metadata": {"name": "git", "namespace": namespace, "generation": 2, "creationTimestamp": "2030-01-01T00:00:00Z"},
            "spec": spec, "status": status,
        });
        IssuerObject::parse(kind, serde_json::from_value(object).expect("an object")).expect("an issuer")
    }

    fn ready(status: &str, reason: &str, generation: i64) -> Value {
        let condition = json!({
            "type": "Ready", "status": status, "reason": reason, "message": "why", "lastTransitionTime": "2030-01-01T00:00:00Z",
        });
        json!({"conditions": [condition], "observedGeneration": generation, "tokens": 3, "lastPolledAt": "2030-01-01T00:07:00Z"})
    }

    #[test]
    fn state_follows_the_condition_and_the_generation() {
        let spec = || json!({"gitLab": {"url": "https://git.example.com"}});
        for (spec, status, (word, tone, part)) in [
            (spec(), ready("True", "Available", 2), ("True", Tone::Good, "")),
            (spec(), ready("True", "Available", 1), ("True", Tone::Warning, "latest change")),
            (spec(), ready("False", "IssuerUnavailable", 2), ("False", Tone::Warning, "why")),
            (spec(), ready("False", "IssuerNotReady", 2), ("False", Tone::Bad, "why")),
            (spec(), json!({}), ("Unknown", Tone::Warning, "--issuers")),
            (json!({"gitLab": 7}), json!({}), ("False", Tone::Bad, "spec: ")),
        ] {
            let state = issuer(IssuerKind::ClusterTokenIssuer, None, spec, status).state();
            assert_eq!((&*state.ready, state.tone), (word, tone), "{state:?}");
            assert!(state.message.contains(part) && state.message.is_empty() == part.is_empty(), "{state:?}");
        }
    }

    #[test]
    fn table_shows_messages_only_if_there_are_any() {
        let now = NOW.parse().expect("a time");
        let spec = json!({"gitea": {"url": "https://git.example.com"}, "pollInterval": "10m"});
        let good = issuer(IssuerKind::ClusterTokenIssuer, None, spec.clone(), ready("True", "Available", 2));
        let bad = issuer(IssuerKind::TokenIssuer, Some("shop"), spec, ready("False", "IssuerNotReady", 2));
        let words = |table: &Table| -> Vec<Vec<String>> {
            let text = table.render(Paint::plain(), 0);
            text.lines()
                .map(|line| {
                    line.split("   ").map(str::trim).filter(|word| !word.is_empty()).map(str::to_owned).collect()
                })
                .collect()
        };
        let lines = words(&table(std::slice::from_ref(&good), false, now));
        assert_eq!(
            lines[1],
            ["ClusterTokenIssuer", "-", "git", "True", "Available", "Gitea", "https://git.example.com", "3", "3m ago"]
        );
        let lines = words(&table(&[good, bad], true, now));
        assert!(
            lines[0].ends_with(&[
                "INTERVAL".into(),
                "VERSION".into(),
                "ACCOUNT".into(),
                "AGE".into(),
                "MESSAGE".into()
            ]),
            "{lines:?}"
        );
        assert_eq!(lines[2][1], "shop");
        assert!(lines[2].ends_with(&["10m".into(), "-".into(), "-".into(), "10m".into(), "why".into()]), "{lines:?}");
        assert!(lines[1].ends_with(&["-".into()]), "{lines:?}");
    }
}
