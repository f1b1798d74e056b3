//! `kubectl pat reveal`: the token itself, to the person at the terminal.
//!
//! What the Secret holds is checked before it is shown: nobody is handed a dead token. No buffer outlives the print.

use std::io::{self, IsTerminal};

use k8s_openapi::{ByteString, api::core::v1::Secret};
use kube::Api;
use zeroize::Zeroizing;

use super::{
    cli::RevealArgs,
    failure::{Answer, Exit, Failure},
    pat::Pat,
    session::{Session, in_time},
    show::key,
    state::{state, terms},
};
use crate::{api::DeliveryState, token::Presented};

/// Runs it.
pub async fn run(session: &Session, args: &RevealArgs) -> Result<Answer, Failure> {
    let is_terminal = io::stdout().is_terminal();
    if !is_terminal && !args.force {
        return Err(Failure::Refused(
            "stdout is no terminal, and a token in a file or a log is a leak: add --force if the program behind the pipe wants it".into(),
        ));
    }
    let pat = session.pat(&args.name).await?;
    let key = if args.previous { previous_key(&pat)? } else { key(&pat) };
    let name = pat.secret_name();
    if pat.status().delivery == Some(DeliveryState::Delivered) {
        return Err(Failure::NotValid(format!(
            "with spec.secret.delivery: Once the token is handed over once, and somebody has taken it; kubectl pat rotate {} issues another",
            args.name
        )));
    }
    let api: Api<Secret> = Api::namespaced(session.client.clone(), pat.namespace());
    let secret = in_time(api.get_opt(&name)).await?;
    let mut data = secret.and_then(|secret| secret.data).unwrap_or_default();
    let value = data.remove(&key).map(|ByteString(value)| Zeroizing::new(value));
    data.into_values().for_each(|ByteString(value)| drop(Zeroizing::new(value)));
    let value = value.ok_or_else(|| {
        let why = state(&pat, session.now());
        let what = if args.previous { "no replaced token is kept there at present" } else { &*why.message };
        Failure::NotValid(format!("Secret {name} has no key {key}: {what}; see kubectl pat show {}", args.name))
    })?;
    check(session, &pat, &name, &value)?;
    let mut text = Zeroizing::new(String::with_capacity(value.len() + 1));
    text.push_str(str::from_utf8(&value).map_err(|_| broken(&name, &args.name))?);
    // A program may take an end of line for a part of the token.
    if is_terminal {
        text.push('\n');
    }
    Ok(Answer { text, exit: Exit::Good })
}

fn previous_key(pat: &Pat) -> Result<String, Failure> {
    pat.spec().secret.and_then(|secret| secret.previous_key).ok_or_else(|| {
        Failure::Refused(
            "spec.secret.previousKey is not set: a replaced token is kept only where it is asked for".into(),
        )
    })
}

fn broken(secret: &str, name: &str) -> Failure {
    Failure::NotValid(format!(
        "what stands in Secret {secret} is not this object's token: something else wrote it; if an operator runs it is repaired in a moment, \
         see kubectl pat show {name}"
    ))
}

/// Whether this is a token of this object, and works.
fn check(session: &Session, pat: &Pat, secret: &str, value: &[u8]) -> Result<(), Failure> {
    let hash = Presented::parse(value).map_err(|_| broken(secret, pat.name()))?.hash();
    let credential = pat.status().credentials.into_iter().find(|one| one.sha256 == hash);
    let credential = credential.ok_or_else(|| broken(secret, pat.name()))?;
    match terms(pat).map(|terms| terms.judge(&credential, session.now())) {
        Some(verdict) if verdict.is_valid() => Ok(()),
        _ => {
            let state = state(pat, session.now());
            Err(Failure::NotValid(format!("the token {} does not work any more: {}", credential.id, state.message)))
        }
    }
}
