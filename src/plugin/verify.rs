//! `kubectl pat verify`: whose is this token, what may it do, and is it good?
//!
//! The token comes from stdin, or is typed unseen. Its grammar and checksum are judged here; then its hash is looked up among the
//! tokens that the person may list, and judged as a verifier would. The token itself goes nowhere.

use std::io::{self, IsTerminal, Read};

use clap::Args;
use k8s_openapi::api::events::v1::Event;
use kube::{Api, api::ListParams};
use serde_json::json;
use zeroize::Zeroizing;

use super::{
    cli::{ClusterArgs, Format},
    failure::{Answer, Exit, Failure},
    list::{json_text, yaml_text},
    pat::Pat,
    phrase,
    session::{Session, in_time},
    state::{state, terms},
    terminal::{Tone, plain},
};
use crate::{
    api::{Credential, StoredOwner, Time},
    auth::verdict::Verdict,
    token::{Token, TokenHash},
};

/// Flags of `verify`.
#[derive(Clone, Debug, Args)]
#[command(after_long_help = "\
Exit code 0 if it is good, 3 if it is not or not known. Revocations count from the moment they are written. It looks in all namespaces \
if you may list them, else in one.

Examples:
  kubectl pat verify
  kubectl pat verify < token.txt
  kubectl pat verify --offline < token.txt
  kubectl get secret ci -o jsonpath='{.data.token}' | base64 -d | kubectl pat verify -o json")]
pub struct VerifyArgs {
    /// Only judge grammar and checksum, and ask no cluster
    #[arg(long)]
    pub offline: bool,

    /// For programs
    #[arg(short, long, value_name = "FORMAT")]
    pub output: Option<Format>,
}

/// Longer than any token; what is longer is none.
const MOST: u64 = 1024;

/// Runs it.
pub async fn run(cluster: &ClusterArgs, args: &VerifyArgs) -> Result<Answer, Failure> {
    let token = read()?;
    let token = Token::parse(token.as_slice())
        .map_err(|error| Failure::NotValid(format!("it is no token of this kind: {error}")));
    let token = match token {
        Ok(token) => token,
        Err(failure) if args.output.is_none() => return Err(failure),
        Err(failure) => return Ok(told(args, Finding::unknown(failure.to_string()))),
    };
    if args.offline {
        let text = format!("token {} is well-formed; whether it is good only a cluster can say\n", token.id());
        return Ok(match args.output {
            None => Answer::good(text),
            Some(_) => told(
                args,
                Finding { valid: None, id: Some(token.id().to_string()), ..Finding::unknown("not asked".into()) },
            ),
        });
    }
    let hash = token.hash();
    let id = token.id().to_string();
    drop(token);
    let session = Session::open(cluster).await?;
    let (pats, place) = reachable(&session).await?;
    let now = session.now();
    let Some((pat, credential)) = find(&pats, hash) else {
        let message = match obituary(&session, &id).await? {
            Some(told) => told,
            None => format!(
                "no live token {place} has the hash of {id}: it was never issued there, or it is dead (revoked, replaced or ended); another \
                 --context may know it"
            ),
        };
        return match args.output {
            None => Err(Failure::NotValid(message)),
            Some(_) => Ok(told(args, Finding { id: Some(id), ..Finding::unknown(message) })),
        };
    };
    let finding = judge(&session, pat, credential, now).await?;
    Ok(match args.output {
        None => page(&session, &finding, now),
        Some(_) => told(args, finding),
    })
}

/// The token's bytes, without the end of the line. On a terminal it is typed unseen.
fn read() -> Result<Zeroizing<Vec<u8>>, Failure> {
    if io::stdin().is_terminal() {
        let typed = rpassword::prompt_password("Token (it is not shown): ").map_err(Failure::io("the terminal"))?;
        let typed = Zeroizing::new(typed);
        return Ok(Zeroizing::new(typed.trim().as_bytes().to_vec()));
    }
    let mut text = Zeroizing::new(Vec::with_capacity(MOST as usize + 1));
    io::stdin().lock().take(MOST).read_to_end(&mut text).map_err(Failure::io("stdin"))?;
    while text.last().is_some_and(u8::is_ascii_whitespace) {
        text.pop();
    }
    if text.is_empty() {
        return Err(Failure::Usage(
            "there is no token on stdin: pipe one in, or run it on a terminal and type it".into(),
        ));
    }
    Ok(text)
}

/// All tokens that the person may list, and where that is, in words.
async fn reachable(session: &Session) -> Result<(Vec<Pat>, String), Failure> {
    let here = format!("in namespace {}", session.namespace);
    if session.namespace_is_named {
        return Ok((session.list(Some(&session.namespace), None).await?, here));
    }
    match session.list(None, None).await {
        Ok(all) => Ok((all, "in this cluster".to_owned())),
        Err(Failure::Api(kube::Error::Api(status))) if status.code == 403 => Ok((
            session.list(Some(&session.namespace), None).await?,
            format!("{here} (you may not list those of all namespaces)"),
        )),
        Err(failure) => Err(failure),
    }
}

/// What an event tells of the end of a token that stands in no status any more. Events last for an hour or so, and whoever may not
/// list them is told less.
async fn obituary(session: &Session, id: &str) -> Result<Option<String>, Failure> {
    let about = ListParams::default().fields("regarding.kind=PersonalAccessToken");
    let mut events = None;
    for api in [Api::<Event>::all(session.client.clone()), Api::namespaced(session.client.clone(), &session.namespace)]
    {
        match in_time(api.list(&about)).await {
            Ok(list) => {
                events = Some(list.items);
                break;
            }
            Err(Failure::Api(kube::Error::Api(status))) if status.code == 403 => {}
            Err(failure) => return Err(failure),
        }
    }
    let told = events.into_iter().flatten().find_map(|event| {
        let note = event.note.filter(|note| note.contains(&format!("token {id} was revoked")))?;
        let object = event.regarding?;
        Some(format!("{}/{}: {}", object.namespace.unwrap_or_default(), object.name.unwrap_or_default(), plain(&note)))
    });
    Ok(told)
}

/// The elder of two objects that claim one hash is the one whose it is.
fn find(pats: &[Pat], hash: TokenHash) -> Option<(&Pat, Credential)> {
    let found = pats.iter().filter_map(|pat| {
        let credential = pat.status().credentials.into_iter().find(|one| one.sha256 == hash)?;
        Some((pat, credential))
    });
    found.min_by_key(|(pat, _)| (pat.stored.metadata.creation_timestamp.clone(), pat.stored.uid().to_owned()))
}

/// What was found out.
#[derive(Default)]
struct Finding {
    /// `None`: nobody was asked.
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

impl Finding {
    fn unknown(why: String) -> Self {
        Self { valid: Some(false), why, ..Self::default() }
    }
}

async fn judge(session: &Session, pat: &Pat, credential: Credential, now: Time) -> Result<Finding, Failure> {
    let terms = terms(pat);
    let verdict = terms.as_ref().map(|terms| terms.judge(&credential, now));
    let disabled = owner_is_disabled(session, pat).await?;
    let why = match verdict {
        None => format!("its spec cannot be read: {}", state(pat, now).message),
        Some(Verdict::Valid) if disabled => "its owner is disabled by a TokenOwner".to_owned(),
        Some(Verdict::Valid) => String::new(),
        Some(Verdict::Deleted) => "its PersonalAccessToken is being deleted".to_owned(),
        Some(Verdict::Revoked) => "spec.revoked is true".to_owned(),
        Some(Verdict::RevokedByTime) => "it was issued before spec.revokeIfIssuedBefore".to_owned(),
        Some(Verdict::RevokedById) => "spec.revokedCredentials names it".to_owned(),
        Some(Verdict::TokenExpired) => "the whole token has ended; kubectl pat extend has a new one issued".to_owned(),
        Some(Verdict::CredentialExpired) => {
            "it was replaced and its grace period is over; the Secret has the new one".to_owned()
        }
    };
    let end = terms.and_then(|terms| terms.end());
    let spec = pat.spec();
    Ok(Finding {
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

/// Whoever may not read TokenOwners is told what the token alone says.
async fn owner_is_disabled(session: &Session, pat: &Pat) -> Result<bool, Failure> {
    let owner = crate::planner::intent::owner(&pat.stored, &pat.spec());
    let api: Api<StoredOwner> = Api::all(session.client.clone());
    match in_time(api.list(&ListParams::default())).await {
        Ok(owners) => Ok(owners
            .items
            .iter()
            .filter_map(|one| one.spec.as_ref().ok())
            .any(|spec| spec.subject == owner && spec.disabled == Some(true))),
        Err(Failure::Api(kube::Error::Api(status))) if matches!(status.code, 403 | 404) => Ok(false),
        Err(failure) => Err(failure),
    }
}

fn page(session: &Session, finding: &Finding, now: Time) -> Answer {
    let is_good = finding.valid == Some(true);
    let (namespace, name) = finding.object.clone().unwrap_or_default();
    let (tone, word) = if is_good { (Tone::Good, "good") } else { (Tone::Bad, "not good") };
    let mut text = format!("{} {}", session.paint.tint(tone, word), finding.id.as_deref().unwrap_or_default());
    if !is_good {
        text.push_str(&format!(": {}", plain(&finding.why)));
    }
    let listed = |items: &[String], none: &str| if items.is_empty() { none.to_owned() } else { items.join(", ") };
    let end = |time: Option<Time>, none: &str| time.map_or_else(|| none.to_owned(), |time| phrase::both(time, now));
    for (field, value) in [
        ("Token", format!("{namespace}/{name}")),
        ("Owner", finding.owner.clone()),
        ("Scopes", listed(&finding.scopes, "none: it may do nothing")),
        ("Audiences", listed(&finding.audiences, "every verifier that asks for none")),
        ("State", finding.state.clone()),
        ("Until", end(finding.expires_at, "it has no end")),
        ("Last used", end(finding.last_used_at, "not that a verifier told")),
    ] {
        text.push_str(&format!("\n  {:<11} {}", format!("{field}:"), plain(&value)));
    }
    text.push('\n');
    Answer::with(text, if is_good { Exit::Good } else { Exit::NotValid })
}

fn told(args: &VerifyArgs, finding: Finding) -> Answer {
    let (namespace, name) = finding.object.clone().unzip();
    let value = json!({
        "valid": finding.valid,
        "reason": finding.why,
        "id": finding.id,
        "namespace": namespace,
        "name": name,
        "owner": finding.object.is_some().then_some(finding.owner),
        "scopes": finding.scopes,
        "audiences": finding.audiences,
        "state": finding.object.is_some().then_some(finding.state),
        "expiresAt": finding.expires_at,
        "lastUsedAt": finding.last_used_at,
    });
    let text = if args.output == Some(Format::Yaml) { yaml_text(&value) } else { json_text(&value) };
    Answer::with(text, if finding.valid == Some(false) { Exit::NotValid } else { Exit::Good })
}
