//! `kubectl pat verify`: shows the owner of a token and whether the token is valid.
//!
//! The token comes from stdin or a hidden prompt. The plugin checks its format and checksum, then looks up its hash in the tokens that
//! the user may list, and evaluates it as a verifier does. The token is never sent anywhere.

use std::io::{self, IsTerminal, Read};

use clap::Args;
use k8s_openapi::api::events::v1::Event;
use kube::{Api, api::ListParams};
use serde_json::json;
use zeroize::Zeroizing;

use super::{
    cli::{ClusterArgs, OutputFormat},
    error::Error,
    output::{CommandOutput, Exit, json_text, yaml_text},
    pat::PatObject,
    session::{Session, with_timeout},
    state::{is_owner_disabled, read_terms, token_state},
    terminal::{Tone, plain},
    time_format,
};
use crate::{
    api::{Credential, StoredOwner, Time},
    auth::verdict::Verdict,
    planner::EventReason,
    token::{Token, TokenHash},
};

/// Flags of `verify`.
#[derive(Clone, Debug, Args)]
#[command(after_long_help = "\
Reads the token from stdin, or from a hidden prompt on a terminal. Searches all namespaces if you may list their tokens, otherwise one \
namespace. Exits with code 3 if the token is not valid or not known. A revocation takes effect as soon as it is saved.

Examples:
  kubectl pat verify
  kubectl pat verify < token.txt
  kubectl pat verify --offline < token.txt
  kubectl get secret ci -o jsonpath='{.data.token}' | base64 -d | kubectl pat verify -o json")]
pub struct VerifyArgs {
    /// Check only the format and the checksum, without a cluster
    #[arg(long)]
    pub offline: bool,

    /// Output format; defaults to a description
    #[arg(short, long, value_name = "FORMAT")]
    pub output: Option<OutputFormat>,
}

/// The maximum number of bytes to read, longer than any token.
const MAX_INPUT: u64 = 1024;

/// Runs the command.
pub async fn run(cluster: &ClusterArgs, args: &VerifyArgs) -> Result<CommandOutput, Error> {
    let token = read_token()?;
    let token = Token::parse(token.as_slice())
        .map_err(|error| Error::NotValid(format!("not a personal access token: {error}")));
    let token = match token {
        Ok(token) => token,
        Err(error) if args.output.is_none() => return Err(error),
        Err(error) => return Ok(object_output(args, Verification::invalid(error.to_string()))),
    };
    if args.offline {
        let text =
            format!("token {} is well-formed; verify it without --offline to check whether it is valid\n", token.id());
        return Ok(match args.output {
            None => CommandOutput::success(text),
            Some(_) => object_output(
                args,
                Verification {
                    valid: None,
                    id: Some(token.id().to_string()),
                    ..Verification::invalid("not checked".into())
                },
            ),
        });
    }
    let hash = token.hash();
    let id = token.id().to_string();
    drop(token);
    let session = Session::open(cluster).await?;
    let (pats, scope) = list_visible(&session).await?;
    let now = session.now();
    let Some((pat, credential)) = find_credential(&pats, hash) else {
        let message = match find_revocation_event(&session, &id).await? {
            Some(message) => message,
            None => format!(
                "token {id} is not valid {scope}: it was never issued there, or it was revoked, replaced or expired; use --context to check \
                 another cluster"
            ),
        };
        return match args.output {
            None => Err(Error::NotValid(message)),
            Some(_) => Ok(object_output(args, Verification { id: Some(id), ..Verification::invalid(message) })),
        };
    };
    let verification = evaluate(&session, pat, credential, now).await?;
    Ok(match args.output {
        None => description(&session, &verification, now),
        Some(_) => object_output(args, verification),
    })
}

/// Reads the token from stdin, without trailing whitespace. On a terminal it shows a hidden prompt.
fn read_token() -> Result<Zeroizing<Vec<u8>>, Error> {
    if io::stdin().is_terminal() {
        return prompt("Token (input is hidden): ");
    }
    let mut text = Zeroizing::new(Vec::with_capacity(MAX_INPUT as usize + 1));
    io::stdin().lock().take(MAX_INPUT).read_to_end(&mut text).map_err(Error::io("stdin"))?;
    while text.last().is_some_and(u8::is_ascii_whitespace) {
        text.pop();
    }
    if text.is_empty() {
        return Err(Error::Usage(
            "stdin is empty: pipe a token to the command, or run it on a terminal to get a prompt".into(),
        ));
    }
    Ok(text)
}

/// Reads a line from the terminal, without showing it.
pub fn prompt(question: &str) -> Result<Zeroizing<Vec<u8>>, Error> {
    let typed = Zeroizing::new(rpassword::prompt_password(question).map_err(Error::io("terminal"))?);
    Ok(Zeroizing::new(typed.trim().as_bytes().to_vec()))
}

/// Lists all tokens that the user may list. Also returns the searched scope, for messages.
async fn list_visible(session: &Session) -> Result<(Vec<PatObject>, String), Error> {
    let here = format!("in namespace {}", session.namespace);
    if session.namespace_is_named {
        return Ok((session.list_pats(Some(&session.namespace), None).await?, here));
    }
    match session.list_pats(None, None).await {
        Ok(all) => Ok((all, "in this cluster".to_owned())),
        Err(error) if error.is_api_status(403) => Ok((
            session.list_pats(Some(&session.namespace), None).await?,
            format!("{here} (you may not list the tokens of all namespaces)"),
        )),
        Err(error) => Err(error),
    }
}

/// Finds the event about the end of a token that is no longer in a status. The API server keeps events for about an hour. A user who
/// may not list events gets a less specific message.
pub async fn find_revocation_event(session: &Session, id: &str) -> Result<Option<String>, Error> {
    let about = ListParams::default().fields("regarding.kind=PersonalAccessToken");
    let mut events = None;
    for api in [Api::<Event>::all(session.client.clone()), Api::namespaced(session.client.clone(), &session.namespace)]
    {
        match with_timeout(api.list(&about)).await {
            Ok(list) => {
                events = Some(list.items);
                break;
            }
            Err(error) if error.is_api_status(403) => {}
            Err(error) => return Err(error),
        }
    }
    let mut revocations = events
        .into_iter()
        .flatten()
        .filter(|event| event.reason.as_deref() == Some(EventReason::CredentialRevoked.as_str()));
    let message = revocations.find_map(|event| {
        let note = event.note.filter(|note| note.contains(&format!("token {id} ")))?;
        let object = event.regarding?;
        Some(format!("{}/{}: {}", object.namespace.unwrap_or_default(), object.name.unwrap_or_default(), plain(&note)))
    });
    Ok(message)
}

/// Finds the credential with this hash. If several objects have it, the oldest object wins.
fn find_credential(pats: &[PatObject], hash: TokenHash) -> Option<(&PatObject, Credential)> {
    let found = pats.iter().filter_map(|pat| {
        let credential = pat.status().credentials.into_iter().find(|one| one.sha256 == hash)?;
        Some((pat, credential))
    });
    found.min_by_key(|(pat, _)| (pat.stored.metadata.creation_timestamp.clone(), pat.stored.uid().to_owned()))
}

#[derive(Default)]
struct Verification {
    /// `None` if no cluster was asked.
    valid: Option<bool>,
    why: String,
    id: Option<String>,
    object: Option<(String, String)>,
    owner: String,
    scopes: Vec<String>,
    audiences: Vec<String>,
    state: String,
    expires_at: Option<Time>,
    last_used_at: Option<Time>,
}

impl Verification {
    fn invalid(why: String) -> Self {
        Self { valid: Some(false), why, ..Self::default() }
    }
}

async fn evaluate(
    session: &Session,
    pat: &PatObject,
    credential: Credential,
    now: Time,
) -> Result<Verification, Error> {
    let terms = read_terms(pat);
    let verdict = terms.as_ref().map(|terms| terms.judge(&credential, now));
    let disabled = is_owner_disabled(pat) || owner_is_disabled(session, pat).await?;
    let why = match verdict {
        None => format!("the spec of its PersonalAccessToken is invalid: {}", token_state(pat, now).message),
        Some(Verdict::Valid) if disabled => "its owner is disabled by a TokenOwner".to_owned(),
        Some(Verdict::Valid) => String::new(),
        Some(Verdict::Deleted) => "its PersonalAccessToken is being deleted".to_owned(),
        Some(Verdict::Revoked) => "spec.revoked is true".to_owned(),
        Some(Verdict::RevokedByTime) => "it was issued before spec.revokeIfIssuedBefore".to_owned(),
        Some(Verdict::RevokedById) => "it is listed in spec.revokedCredentials".to_owned(),
        Some(Verdict::TokenExpired) => "it expired; get a new one with `kubectl pat extend`".to_owned(),
        Some(Verdict::CredentialExpired) => {
            "it was replaced, and its grace period is over; the Secret contains the new token".to_owned()
        }
    };
    let end = terms.and_then(|terms| terms.end());
    let spec = pat.spec();
    Ok(Verification {
        valid: Some(why.is_empty()),
        why,
        id: Some(credential.id.to_string()),
        object: Some((pat.namespace().to_owned(), pat.name().to_owned())),
        owner: pat.owner(),
        scopes: spec.scopes,
        audiences: spec.audiences,
        state: credential.state.as_str().to_owned(),
        expires_at: credential.expires_at.into_iter().chain(end).min(),
        last_used_at: pat.status().last_used_at,
    })
}

/// Whether a TokenOwner disables the owner; false if the user may not list TokenOwners.
async fn owner_is_disabled(session: &Session, pat: &PatObject) -> Result<bool, Error> {
    let owner = crate::planner::intent::owner(&pat.stored, &pat.spec());
    let api: Api<StoredOwner> = Api::all(session.client.clone());
    match with_timeout(api.list(&ListParams::default())).await {
        Ok(owners) => Ok(owners
            .items
            .iter()
            .filter_map(|one| one.spec.as_ref().ok())
            .any(|spec| spec.subject == owner && spec.disabled == Some(true))),
        Err(error) if error.is_api_status(403) || error.is_api_status(404) => Ok(false),
        Err(error) => Err(error),
    }
}

fn description(session: &Session, verification: &Verification, now: Time) -> CommandOutput {
    let is_valid = verification.valid == Some(true);
    let (namespace, name) = verification.object.clone().unwrap_or_default();
    let (tone, word) = if is_valid { (Tone::Good, "valid") } else { (Tone::Bad, "not valid") };
    let mut text = format!("{} {}", session.paint.tint(tone, word), verification.id.as_deref().unwrap_or_default());
    if !is_valid {
        text.push_str(&format!(": {}", plain(&verification.why)));
    }
    let listed = |items: &[String], none: &str| if items.is_empty() { none.to_owned() } else { items.join(", ") };
    let end = |time: Option<Time>, none: &str| {
        time.map_or_else(|| none.to_owned(), |time| time_format::format_time(time, now))
    };
    for (field, value) in [
        ("Token", format!("{namespace}/{name}")),
        ("Owner", verification.owner.clone()),
        ("Scopes", listed(&verification.scopes, "none (the token grants no access)")),
        ("Audiences", listed(&verification.audiences, "none (only verifiers that require no audience accept it)")),
        ("State", verification.state.clone()),
        ("Expires", end(verification.expires_at, "never")),
        ("Last used", end(verification.last_used_at, "never reported by a verifier")),
    ] {
        text.push_str(&format!("\n  {:<11} {}", format!("{field}:"), plain(&value)));
    }
    text.push('\n');
    CommandOutput::with_exit(text, if is_valid { Exit::Success } else { Exit::NotValid })
}

fn object_output(args: &VerifyArgs, verification: Verification) -> CommandOutput {
    let (namespace, name) = verification.object.clone().unzip();
    let value = json!({
        "valid": verification.valid,
        "reason": verification.why,
        "id": verification.id,
        "namespace": namespace,
        "name": name,
        "owner": verification.object.is_some().then_some(verification.owner),
        "scopes": verification.scopes,
        "audiences": verification.audiences,
        "state": verification.object.is_some().then_some(verification.state),
        "expiresAt": verification.expires_at,
        "lastUsedAt": verification.last_used_at,
    });
    let text = if args.output == Some(OutputFormat::Yaml) { yaml_text(&value) } else { json_text(&value) };
    CommandOutput::with_exit(text, if verification.valid == Some(false) { Exit::NotValid } else { Exit::Success })
}
