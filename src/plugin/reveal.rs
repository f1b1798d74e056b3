//! `kubectl pat reveal`: prints the token itself.
//!
//! The token in the Secret is checked first, so that an invalid token is never printed. All buffers are zeroized after printing.

use std::io::{self, IsTerminal};

use k8s_openapi::{ByteString, api::core::v1::Secret, apimachinery::pkg::apis::meta::v1::ObjectMeta};
use kube::{
    Api,
    api::{DeleteParams, Preconditions},
};
use zeroize::{Zeroize, Zeroizing};

use super::{
    cli::RevealArgs,
    error::Error,
    output::{CommandOutput, Exit, write_stdout},
    pat::PatObject,
    session::{Session, with_timeout},
    state::{is_owner_disabled, read_terms, token_state},
};
use crate::api::{DeliveryState, SecretDelivery};

/// Runs the command.
pub async fn run(session: &Session, args: &RevealArgs) -> Result<CommandOutput, Error> {
    let is_terminal = io::stdout().is_terminal();
    if !is_terminal && !args.force {
        return Err(Error::Refused(
            "stdout is not a terminal: a token in a file or a log may leak; use --force to write it to a pipe or a file".into(),
        ));
    }
    let pat = session.get_pat(&args.name).await?;
    if args.take && pat.spec().secret.is_none_or(|secret| secret.delivery != Some(SecretDelivery::Once)) {
        return Err(Error::Refused(
            "--take is for tokens with spec.secret.delivery: Once; the operator would replace the deleted Secret of another token, so run \
             the command without --take"
                .into(),
        ));
    }
    let key = if args.previous { previous_key(&pat)? } else { pat.secret_key() };
    let name = pat.secret_name();
    if pat.status().delivery == Some(DeliveryState::Delivered) {
        return Err(Error::NotValid(format!(
            "the token was already taken from Secret {name}, and spec.secret.delivery is Once; issue a new one with `kubectl pat rotate {}`",
            args.name
        )));
    }
    let api: Api<Secret> = Api::namespaced(session.client.clone(), pat.namespace());
    let Secret { metadata, data, .. } = with_timeout(api.get_opt(&name)).await?.unwrap_or_default();
    let mut data = data.unwrap_or_default();
    let value = data.remove(&key).map(|ByteString(value)| Zeroizing::new(value));
    data.into_values().for_each(|ByteString(value)| drop(Zeroizing::new(value)));
    let value = value.ok_or_else(|| {
        let why = token_state(&pat, session.now());
        let what = if args.previous { "no replaced token is valid" } else { &*why.message };
        Error::NotValid(format!(
            "Secret {name} has no key {key}: {what}; run `kubectl pat show {}` for details",
            args.name
        ))
    })?;
    check(session, &pat, &name, &value)?;
    let mut text = Zeroizing::new(String::with_capacity(value.len() + 1));
    text.push_str(str::from_utf8(&value).map_err(|_| foreign_value(&name, &args.name))?);
    // Programs that read a pipe may treat a newline as part of the token.
    if is_terminal {
        text.push('\n');
    }
    if args.take {
        // Only a token that was printed counts as taken.
        write_stdout(&text).map_err(Error::io("stdout"))?;
        text.zeroize();
        take(&api, &name, metadata, &args.name).await?;
    }
    Ok(CommandOutput { text, errors: Vec::new(), exit: Exit::Success })
}

/// Deletes the Secret in the version that was printed, which tells the operator that the token was taken.
async fn take(api: &Api<Secret>, secret: &str, printed: ObjectMeta, name: &str) -> Result<(), Error> {
    let preconditions = Preconditions { uid: printed.uid, resource_version: printed.resource_version };
    let params = DeleteParams { preconditions: Some(preconditions), ..DeleteParams::default() };
    match with_timeout(api.delete(secret, &params)).await {
        Ok(_) => {
            eprintln!("note: Secret {secret} was deleted, so this token cannot be printed again");
            Ok(())
        }
        Err(error) if error.is_api_status(409) => Err(Error::Refused(format!(
            "Secret {secret} changed while its token was printed, and was not deleted; run `kubectl pat reveal {name} --take` again, and use \
             the token of that run"
        ))),
        Err(error) => Err(Error::Refused(format!(
            "the token was printed, but Secret {secret} was not deleted: {error}; the token is revoked after 10 minutes unless you delete the \
             Secret with `kubectl delete secret {secret}`"
        ))),
    }
}

fn previous_key(pat: &PatObject) -> Result<String, Error> {
    pat.spec().secret.and_then(|secret| secret.previous_key).ok_or_else(|| {
        Error::Refused("spec.secret.previousKey is not set, so the Secret contains no replaced token".into())
    })
}

fn foreign_value(secret: &str, name: &str) -> Error {
    Error::NotValid(format!(
        "Secret {secret} does not contain a token of {name}: something else changed it. A running operator repairs it within moments. \
         Run `kubectl pat show {name}` for details."
    ))
}

/// Checks that the value is a valid token of this object.
fn check(session: &Session, pat: &PatObject, secret: &str, value: &[u8]) -> Result<(), Error> {
    let hash = crate::planner::observed::hash(value);
    let credential = pat.status().credentials.into_iter().find(|one| one.sha256 == hash);
    let credential = credential.ok_or_else(|| foreign_value(secret, pat.name()))?;
    match read_terms(pat).map(|terms| terms.judge(&credential, session.now())) {
        Some(verdict) if verdict.is_valid() && !is_owner_disabled(pat) => Ok(()),
        _ => {
            let state = token_state(pat, session.now());
            Err(Error::NotValid(format!("token {} is not valid: {}", credential.id, state.message)))
        }
    }
}
