//! A change of a spec: decided on one version of the object, written over exactly that, and never behind a GitOps tool's back.
//!
//! It must not know which change it is.

use kube::api::{Patch, PatchParams};
use serde_json::{Value, json};

use super::{
    FIELD_MANAGER,
    cli::ChangeArgs,
    failure::Failure,
    ownership::{owners, source},
    pat::Pat,
    session::{Session, in_time},
};

/// How often somebody else may be faster before it is given up.
const TRIES: usize = 5;

/// What a command wants of a spec.
pub struct Wish {
    /// The field of the spec that it sets.
    pub field: &'static str,
    /// A JSON merge patch of the whole spec.
    pub spec: Value,
    /// The same for a person to copy into a manifest, such as `spec.revoked: true`.
    pub words: String,
}

/// Changes one token; `wish` says what to, and is asked again if the object has changed meanwhile. What comes back is the object as it
/// is then, and what to tell beside.
pub async fn change(
    session: &Session,
    name: &str,
    args: ChangeArgs,
    wish: impl Fn(&Pat) -> Result<Wish, Failure>,
) -> Result<(Pat, Wish, Vec<String>), Failure> {
    for _ in 0..TRIES {
        let pat = session.pat(name).await?;
        let wish = wish(&pat)?;
        let notes = mind_owners(&pat, &wish, args.force)?;
        let version = pat.stored.resource_version();
        let body = json!({"metadata": {"resourceVersion": version}, "spec": wish.spec});
        let params =
            PatchParams { field_manager: Some(FIELD_MANAGER.into()), dry_run: args.dry_run, ..Default::default() };
        let api = session.pats(Some(pat.namespace()));
        match in_time(api.patch(name, &params, &Patch::Merge(&body))).await {
            Ok(object) => return Ok((Pat::of(object)?, wish, notes)),
            Err(Failure::Api(kube::Error::Api(status))) if status.code == 409 => {}
            Err(failure) => return Err(failure),
        }
    }
    Err(Failure::Refused(format!(
        "{name} was changed by others {TRIES} times in a row; try again, and see kubectl pat show {name}"
    )))
}

/// Refuses what a tool would set back; tells what another manifest would.
fn mind_owners(pat: &Pat, wish: &Wish, force: bool) -> Result<Vec<String>, Failure> {
    let mut notes = Vec::new();
    for owner in owners(&pat.object, wish.field) {
        let from = source(&pat.object).map_or_else(String::new, |source| format!(" ({source})"));
        match owner.gitops {
            Some(tool) if !force => {
                return Err(Failure::Refused(format!(
                    "spec.{} of {} belongs to {tool}{from}, which would set it back: change it in that repository, to {}; or add --force \
                     for the time until then",
                    wish.field,
                    pat.name(),
                    wish.words
                )));
            }
            Some(tool) => notes.push(format!(
                "spec.{} belongs to {tool}{from}, which will set it back: change it in that repository, to {}",
                wish.field, wish.words
            )),
            None if owner.manager == "kubectl-edit" || owner.manager == "kubectl-patch" => {}
            None => notes.push(format!(
                "{} wrote spec.{} before: change its manifest as well, to {}, or it comes back with the next apply",
                owner.manager, wish.field, wish.words
            )),
        }
    }
    Ok(notes)
}

/// Prints what there is to tell beside; it is not the answer.
pub fn tell(notes: &[String]) {
    for note in notes {
        eprintln!("note: {}", super::terminal::plain(note));
    }
}

/// What stands behind a line of a change that is only tried.
pub fn suffix(args: ChangeArgs) -> &'static str {
    if args.dry_run { " (dry run)" } else { "" }
}
