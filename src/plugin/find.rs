//! `kubectl pat find`: finds the objects that issued tokens, by their IDs, by their hashes, or by a text that contains the tokens.
//!
//! The text comes from stdin. It is read in pieces, and only IDs and hashes of the tokens in it are kept.

use std::io::{self, IsTerminal, Read};

use clap::Args;
use serde_json::{Value, json};
use zeroize::Zeroizing;

use super::{
    cli::{ClusterArgs, OutputFormat},
    error::Error,
    output::{CommandOutput, Exit, Table, json_text, yaml_text},
    pat::PatObject,
    session::Session,
    state::{credential_state, is_owner_disabled, read_terms},
    terminal::Tone,
    time_format,
    verify::{find_revocation_event, prompt},
};
use crate::{
    api::{Credential, Time},
    token::{Presented, TokenHash, TokenId},
};

/// Flags of `find`.
#[derive(Clone, Debug, Args)]
#[command(after_long_help = "\
Use it when a token appears where it should not: in a log, in a repository, or in the report of a secret scanner. Without an argument, \
the command reads a text from stdin and finds every token in it, whatever surrounds the tokens. The text never leaves your machine. \
Exits with code 1 if the text has no token, or if a token is not found. Use verify to find out whether a token is valid.

Examples:
  kubectl pat find -A < leaked.log
  git log -p | kubectl pat find -A
  kubectl pat find 0aB1cD2eF3gH
  kubectl pat find -A -o json < leaked.log | jq -r '.items[] | .namespace + \"/\" + .name'
  kubectl pat revoke ci --reissue            revoke the token that was found, and issue a new one")]
pub struct FindArgs {
    /// IDs of tokens, or SHA-256 hashes of whole tokens; never a token itself
    #[arg(value_name = "ID")]
    pub ids: Vec<String>,

    /// Search the tokens of all namespaces
    #[arg(short = 'A', long, conflicts_with = "namespace")]
    pub all_namespaces: bool,

    /// Output format; defaults to a table
    #[arg(short, long, value_name = "FORMAT")]
    pub output: Option<OutputFormat>,
}

/// What is searched for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sought {
    Id(TokenId),
    Hash(TokenHash),
    /// A token in the text.
    Token(TokenId, TokenHash),
}

impl Sought {
    /// Reads an argument. An error does not repeat it, because it may be a mistyped token.
    fn parse(number: usize, text: &str) -> Result<Self, Error> {
        let hash = || text.to_ascii_lowercase().parse().map(Self::Hash);
        text.parse().map(Self::Id).or_else(|_| hash()).map_err(|_| {
            Error::Usage(format!(
                "argument {number} is neither an ID (12 letters and digits) nor a SHA-256 hash (64 hexadecimal digits). To find the tokens \
                 in a text, pass the text on stdin, as in `kubectl pat find < leaked.log`, because other programs can read arguments."
            ))
        })
    }

    fn is(&self, credential: &Credential) -> bool {
        match self {
            Self::Id(id) => credential.id == *id,
            Self::Hash(hash) | Self::Token(_, hash) => credential.sha256 == *hash,
        }
    }

    fn id(&self) -> Option<String> {
        match self {
            Self::Id(id) | Self::Token(id, _) => Some(id.to_string()),
            Self::Hash(_) => None,
        }
    }
}

/// A token that was found, or not.
struct Found<'a> {
    sought: Sought,
    /// Its object, and its credential unless that was already revoked.
    owner: Option<(&'a PatObject, Option<Credential>)>,
    /// Why nothing was found.
    why_not: String,
}

/// Runs the command.
pub async fn run(cluster: &ClusterArgs, args: &FindArgs) -> Result<CommandOutput, Error> {
    let numbered = args.ids.iter().enumerate();
    let mut sought = numbered.map(|(index, text)| Sought::parse(index + 1, text)).collect::<Result<Vec<_>, _>>()?;
    if args.ids.is_empty() {
        sought = read_tokens()?;
        if sought.is_empty() {
            return Err(Error::NotFound(
                "the text contains no token with a valid checksum; a token that was cut off or mistyped can only be found by its ID, the 12 \
                 characters after the underscore"
                    .into(),
            ));
        }
    }
    let session = Session::open(cluster).await?;
    let namespace = (!args.all_namespaces).then_some(&*session.namespace);
    let pats = session.list_pats(namespace, None).await?;
    let mut found = Vec::new();
    for sought in sought {
        found.extend(search(&session, &pats, sought, namespace).await?);
    }
    let now = session.now();
    let text = match args.output {
        None => table(&found, now).render(session.paint, 0),
        Some(format) => {
            let items: Vec<_> = found.iter().map(|one| item(one, now)).collect();
            let value = json!({"items": items});
            if format == OutputFormat::Yaml { yaml_text(&value) } else { json_text(&value) }
        }
    };
    let is_empty = args.output.is_none() && found.iter().all(|one| one.owner.is_none());
    let mut output = CommandOutput::success(if is_empty { String::new() } else { text });
    output.errors = found.into_iter().map(|one| one.why_not).filter(|why_not| !why_not.is_empty()).collect();
    if !output.errors.is_empty() {
        output.exit = Exit::Failed;
    }
    Ok(output)
}

/// Searches the objects. Several objects may list a credential; all of them are returned, the oldest first.
async fn search<'a>(
    session: &Session,
    pats: &'a [PatObject],
    sought: Sought,
    namespace: Option<&str>,
) -> Result<Vec<Found<'a>>, Error> {
    let live = |pat: &'a PatObject| {
        let credential = pat.status().credentials.into_iter().find(|one| sought.is(one))?;
        Some((pat, Some(credential)))
    };
    let mut owners: Vec<_> = pats.iter().filter_map(live).collect();
    if let (true, Some(id)) = (owners.is_empty(), sought.id()) {
        let revoked = pats.iter().filter(|pat| pat.spec().revoked_credentials.contains(&id));
        owners.extend(revoked.map(|pat| (pat, None)));
    }
    owners.sort_by_key(|(pat, _)| (pat.stored.metadata.creation_timestamp.clone(), pat.stored.uid().to_owned()));
    if !owners.is_empty() {
        let found = owners.into_iter().map(|owner| Found { sought, owner: Some(owner), why_not: String::new() });
        return Ok(found.collect());
    }
    let what = match sought {
        Sought::Id(id) | Sought::Token(id, _) => format!("token {id}"),
        Sought::Hash(hash) => format!("the token with the hash {hash}"),
    };
    let event = match sought.id() {
        Some(id) => find_revocation_event(session, &id).await?,
        None => None,
    };
    let (scope, hint) = match namespace {
        Some(namespace) => (format!("in namespace {namespace}"), "use -A to search all namespaces"),
        None => ("in this cluster".to_owned(), "use --context to search another cluster"),
    };
    let why_not = event.unwrap_or_else(|| {
        format!("{what} not found {scope}: it was never issued there, or it was revoked, replaced or expired; {hint}")
    });
    Ok(vec![Found { sought, owner: None, why_not }])
}

fn table(found: &[Found<'_>], now: Time) -> Table {
    let mut table = Table::new(&["ID", "NAMESPACE", "NAME", "OWNER", "STATE", "REVISION", "ISSUED"]);
    for Found { sought, owner, .. } in found {
        let Some((pat, credential)) = owner else { continue };
        let (tone, state) = state(pat, credential.as_ref(), now);
        let text = |field: fn(&Credential) -> String| credential.as_ref().map_or_else(String::new, field);
        let id = credential.as_ref().map(|one| one.id.to_string()).or_else(|| sought.id());
        let issued = credential.as_ref().map(|one| time_format::format_relative(one.issued_at, now));
        table.add_row(vec![
            (Tone::Plain, id.unwrap_or_default()),
            (Tone::Plain, pat.namespace().to_owned()),
            (Tone::Plain, pat.name().to_owned()),
            (Tone::Plain, pat.owner()),
            (tone, state),
            (Tone::Plain, text(|one| one.revision.to_string())),
            (Tone::Plain, issued.unwrap_or_default()),
        ]);
    }
    table
}

fn state(pat: &PatObject, credential: Option<&Credential>, now: Time) -> (Tone, String) {
    match credential {
        Some(credential) => credential_state(read_terms(pat).as_ref(), credential, now),
        None => (Tone::Bad, "RevokedById".to_owned()),
    }
}

fn item(found: &Found<'_>, now: Time) -> Value {
    let Found { sought, owner, why_not } = found;
    let (pat, credential) = owner.clone().unzip();
    let credential = credential.flatten();
    let hash = match sought {
        Sought::Hash(hash) | Sought::Token(_, hash) => Some(hash.to_string()),
        Sought::Id(_) => credential.as_ref().map(|one| one.sha256.to_string()),
    };
    let verdict = pat.and_then(read_terms).zip(credential.as_ref()).map(|(terms, one)| terms.judge(one, now));
    json!({
        "id": credential.as_ref().map(|one| one.id.to_string()).or_else(|| sought.id()),
        "sha256": hash,
        "found": pat.is_some(),
        "reason": why_not,
        "namespace": pat.map(PatObject::namespace),
        "name": pat.map(PatObject::name),
        "owner": pat.map(PatObject::owner),
        "state": pat.map(|pat| state(pat, credential.as_ref(), now).1),
        "valid": pat.map(|pat| verdict.is_some_and(|verdict| verdict.is_valid()) && !is_owner_disabled(pat)),
        "revision": credential.as_ref().map(|one| one.revision),
        "issuedAt": credential.as_ref().map(|one| one.issued_at),
        "expiresAt": credential.and_then(|one| one.expires_at),
    })
}

/// Reads stdin, or on a terminal a hidden prompt, and finds the tokens in it.
fn read_tokens() -> Result<Vec<Sought>, Error> {
    if io::stdin().is_terminal() {
        let typed = prompt("Text with tokens (input is hidden): ")?;
        return scan(&typed[..]).map_err(Error::io("terminal"));
    }
    scan(io::stdin().lock()).map_err(Error::io("stdin"))
}

/// The size of a piece of the text.
const PIECE: usize = 64 * 1024;

/// Finds the tokens of a text, each once. No token is lost between two pieces, because their ends overlap.
fn scan(mut text: impl Read) -> io::Result<Vec<Sought>> {
    let mut piece = Zeroizing::new(vec![0; PIECE]);
    let (mut filled, mut found) = (0, Vec::new());
    loop {
        let count = match text.read(&mut piece[filled..]) {
            Ok(0) => return Ok(found),
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        filled += count;
        for token in Presented::find_in(&piece[..filled]) {
            let token = Sought::Token(token.id(), token.hash());
            if !found.contains(&token) {
                found.push(token);
            }
        }
        let kept = filled.min(Presented::MAX_LEN - 1);
        piece.copy_within(filled - kept..filled, 0);
        filled = kept;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::token::Token;

    fn token(prefix: &str) -> (String, Sought) {
        let token = Token::mint(&prefix.parse().unwrap()).unwrap();
        (token.expose().to_owned(), Sought::Token(token.id(), token.hash()))
    }

    #[test]
    fn tokens_are_found_in_any_text_and_across_pieces() {
        let tokens: Vec<_> = ["kpat", "ab", "averylongprefix", "kpat"].map(token).into();
        let text = format!(
            "x={}&y\nMY_TOKEN_{}%0Azz{}zz again {}, and {}",
            tokens[0].0, tokens[1].0, tokens[2].0, tokens[0].0, tokens[3].0
        );
        let sought = |order: &[usize]| order.iter().map(|index| tokens[*index].1).collect::<Vec<_>>();
        assert_eq!(scan(text.as_bytes()).unwrap(), sought(&[0, 1, 2, 3]));
        for before in (PIECE - 100..PIECE + 10).chain(2 * PIECE - 200..2 * PIECE - 60) {
            let text = [vec![b'a'; before], tokens[2].0.clone().into_bytes(), vec![b'_'; 100]].concat();
            assert_eq!(scan(&text[..]).unwrap(), sought(&[2]), "{before}");
        }
        // One byte at a time.
        let bytes = text.bytes().map(|byte| [byte]).collect::<Vec<_>>();
        let slow =
            bytes.iter().fold(Box::new(io::empty()) as Box<dyn Read>, |all, byte| Box::new(all.chain(&byte[..])));
        assert_eq!(scan(slow).unwrap(), sought(&[0, 1, 2, 3]));
    }

    #[test]
    fn damaged_token_is_not_found() {
        let (text, _) = token("kpat");
        let last = if text.ends_with('0') { "1" } else { "0" };
        for damaged in
            [text[1..].to_owned(), text[..text.len() - 1].to_owned(), format!("{}{last}", &text[..text.len() - 1])]
        {
            assert_eq!(scan(damaged.as_bytes()).unwrap(), []);
        }
    }

    #[test]
    fn argument_is_an_id_or_a_hash_and_is_never_repeated() {
        let (text, Sought::Token(id, hash)) = token("kpat") else { panic!("a token") };
        assert_eq!(Sought::parse(1, id.as_ref()).unwrap(), Sought::Id(id));
        assert_eq!(Sought::parse(1, &hash.to_string().to_uppercase()).unwrap(), Sought::Hash(hash));
        for wrong in [&text[..], &text[1..], "", "kpat", "0123456789abc"] {
            let error = Sought::parse(2, wrong).unwrap_err();
            assert!(error.exit() == Exit::Usage && error.to_string().contains("find < leaked.log"), "{error}");
            assert!(wrong.len() < 6 || !error.to_string().contains(wrong), "{error}");
        }
    }
}
