//! A change of one field of a spec: conditional on the version of the object that it was decided on, and refused if a GitOps tool
//! would undo it.

use kube::api::{Patch, PatchParams};
use serde_json::{Value, json};

use super::{
    FIELD_MANAGER,
    cli::ChangeArgs,
    error::Error,
    gitops::{field_owners, find_source},
    pat::PatObject,
    session::{Session, with_timeout},
    targets::Target,
    terminal::plain,
};

/// The number of attempts if others change the object at the same time.
const MAX_ATTEMPTS: usize = 5;

/// A change that a command makes to a spec.
pub struct SpecChange {
    /// The field of the spec that it sets.
    pub field: &'static str,
    /// A JSON merge patch of the spec.
    pub patch: Value,
    /// The same change as a line of a manifest, such as `revoked: true`.
    pub manifest: String,
}

/// The result of a change.
pub struct ChangedPat {
    /// The object after the change.
    pub pat: PatObject,
    /// Whether the spec differs from the one before.
    pub is_changed: bool,
    /// Notes for the user, for stderr.
    pub notes: Vec<String>,
}

/// Changes one object. `decide` chooses the change, and is called again if others changed the object in the meantime.
pub async fn apply_change(
    session: &Session,
    target: &Target,
    args: ChangeArgs,
    decide: impl Fn(&PatObject) -> Result<SpecChange, Error>,
) -> Result<ChangedPat, Error> {
    let name = &*target.name;
    for _ in 0..MAX_ATTEMPTS {
        let pat = session.get_pat(name).await?;
        target.check(&pat)?;
        let change = decide(&pat)?;
        let notes = check_field_owners(&pat, &change, args.force)?;
        let version = pat.stored.resource_version();
        let body = json!({"metadata": {"resourceVersion": version}, "spec": change.patch});
        let params =
            PatchParams { field_manager: Some(FIELD_MANAGER.into()), dry_run: args.dry_run, ..Default::default() };
        let api = session.pats(Some(pat.namespace()));
        match with_timeout(api.patch(name, &params, &Patch::Merge(&body))).await {
            Ok(object) => {
                let is_changed = object.metadata.generation != pat.stored.metadata.generation;
                return Ok(ChangedPat { pat: PatObject::parse(object)?, is_changed, notes });
            }
            Err(error) if error.is_api_status(409) => {}
            Err(error) => return Err(error),
        }
    }
    Err(Error::Refused(format!(
        "{name}: conflicting changes in {MAX_ATTEMPTS} attempts; try again, or run `kubectl pat show {name}` to see what changes it"
    )))
}

/// Refuses a change that has no effect because the object is being deleted.
pub fn refuse_if_deleted(pat: &PatObject) -> Result<(), Error> {
    let (name, namespace) = (pat.name(), pat.namespace());
    if !pat.is_deleted() {
        return Ok(());
    }
    Err(Error::Refused(format!(
        "{name}: the object is being deleted, so its tokens are no longer valid, and no token is issued; wait until it is gone with \
         `kubectl wait --for=delete pat/{name} -n {namespace}`, then create it again"
    )))
}

/// Refuses a change that a GitOps tool would undo. Returns a note for each other manifest that sets the field.
fn check_field_owners(pat: &PatObject, change: &SpecChange, force: bool) -> Result<Vec<String>, Error> {
    let SpecChange { field, manifest, .. } = change;
    let name = pat.name();
    let source = find_source(&pat.object).map_or_else(String::new, |source| format!(" ({source})"));
    let mut notes = Vec::new();
    for owner in field_owners(&pat.object, field) {
        match owner.gitops {
            Some(tool) if !force => {
                return Err(Error::Refused(format!(
                    "{name}: spec.{field} is managed by {tool}{source}, which would undo this change. Set `{manifest}` in its \
                     repository, or use --force to change the field until {tool} undoes it."
                )));
            }
            Some(tool) => notes.push(format!(
                "spec.{field} is managed by {tool}{source}, which will undo this change. Set `{manifest}` in its repository."
            )),
            None if owner.manager == "kubectl-edit" || owner.manager == "kubectl-patch" => {}
            None => notes.push(format!(
                "spec.{field} was set by {}. Set `{manifest}` in its manifest too, or the next apply undoes this change.",
                owner.manager
            )),
        }
    }
    Ok(notes)
}

/// Prints notes to stderr.
pub fn print_notes(notes: &[String]) {
    for note in notes {
        eprintln!("note: {}", plain(note));
    }
}

/// Returns the end of an output line: ` (dry run)` if nothing is saved.
pub fn dry_run_suffix(args: ChangeArgs) -> &'static str {
    if args.dry_run { " (dry run)" } else { "" }
}
