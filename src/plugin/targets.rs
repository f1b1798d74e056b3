//! The tokens that `rotate` and `revoke` change: those that the command line names, or those that a selector finds.
//!
//! What a selector finds is listed and confirmed first, and only that is changed: an object that takes the name of another one in the
//! meantime is not.

use clap::Args;

use super::{
    error::Error,
    output::{CommandOutput, Exit, Table},
    pat::PatObject,
    session::Session,
    state::token_state,
    terminal::{self, Paint, Tone, plain},
};
use crate::cli::subdomain;

/// The flags that name or select tokens.
#[derive(Clone, Debug, Args)]
pub struct TargetArgs {
    /// Names of the tokens
    #[arg(required_unless_present_any = ["selector", "all_namespaces"], value_name = "NAME", value_parser = subdomain)]
    pub names: Vec<String>,

    /// Instead of names, select the tokens with these labels, such as team=shop
    #[arg(short = 'l', long, value_name = "SELECTOR", conflicts_with = "names", value_parser = selector)]
    pub selector: Option<String>,

    /// Select tokens in all namespaces; without --selector, all of them
    #[arg(short = 'A', long, conflicts_with_all = ["names", "namespace"])]
    pub all_namespaces: bool,

    /// Skip the confirmation
    #[arg(short, long)]
    pub yes: bool,
}

/// Refuses an empty selector, which selects everything: it is usually an unset variable of a script.
fn selector(text: &str) -> Result<String, &'static str> {
    if text.trim().is_empty() { Err("must not be empty: write a label such as team=shop") } else { Ok(text.to_owned()) }
}

/// One token to change.
#[derive(Clone, Debug)]
pub struct Target {
    /// The namespace of the object.
    pub namespace: String,
    /// The name of the object.
    pub name: String,
    /// The uid of the object that was confirmed; `None` if the command line names it.
    pub uid: Option<String>,
}

impl Target {
    /// The object of this name in the namespace of the session.
    pub fn named(session: &Session, name: &str) -> Self {
        Self { namespace: session.namespace.clone(), name: name.to_owned(), uid: None }
    }

    /// Refuses an object that is not the confirmed one.
    ///
    /// # Errors
    /// The object was created after the confirmation.
    pub fn check(&self, pat: &PatObject) -> Result<(), Error> {
        match &self.uid {
            Some(uid) if uid != pat.stored.uid() => Err(Error::Refused(format!(
                "{}: another object has this name since the tokens were listed; it was not changed, so run the command again",
                self.name
            ))),
            _ => Ok(()),
        }
    }
}

/// What a command does to the tokens that a selector finds.
pub struct Action {
    /// The verb of the question, such as `Rotate`.
    pub verb: &'static str,
    /// What the confirmation should consider.
    pub consequence: &'static str,
    /// Whether the action changes this token. Others are left out.
    pub applies: fn(&PatObject) -> bool,
}

/// Finds the tokens to change. If a selector finds them, they are listed, and the user confirms them.
///
/// # Errors
/// Nothing is found, or it is not confirmed.
pub async fn find(session: &Session, args: &TargetArgs, dry_run: bool, action: &Action) -> Result<Vec<Target>, Error> {
    if !args.names.is_empty() {
        return Ok(args.names.iter().map(|name| Target::named(session, name)).collect());
    }
    let namespace = (!args.all_namespaces).then_some(&*session.namespace);
    let mut pats = session.list_pats(namespace, args.selector.as_deref()).await?;
    pats.retain(|pat| !pat.is_deleted() && (action.applies)(pat));
    pats.sort_by_key(|pat| (pat.namespace().to_owned(), pat.name().to_owned()));
    if pats.is_empty() {
        return Err(Error::NotFound(format!(
            "no tokens to {} found; see them and their labels with `kubectl get pat --show-labels`",
            action.verb.to_lowercase()
        )));
    }
    if !args.yes && !dry_run {
        confirm(session, &pats, action)?;
    }
    let target = |pat: &PatObject| Target {
        namespace: pat.namespace().to_owned(),
        name: pat.name().to_owned(),
        uid: Some(pat.stored.uid().to_owned()),
    };
    Ok(pats.iter().map(target).collect())
}

/// Lists the tokens on stderr, and asks the user to confirm. Without a terminal, `--yes` is required.
fn confirm(session: &Session, pats: &[PatObject], action: &Action) -> Result<(), Error> {
    let mut table = Table::new(&["NAMESPACE", "NAME", "STATE", "OWNER"]);
    for pat in pats {
        let state = token_state(pat, session.now());
        let cells = [pat.namespace(), pat.name(), &state.word, &pat.owner()];
        table.add_row(cells.map(|cell| (Tone::Plain, cell.to_owned())).to_vec());
    }
    eprint!("{}", table.render(Paint::plain(), 0));
    let tokens = if pats.len() == 1 { "this token".to_owned() } else { format!("these {} tokens", pats.len()) };
    let question = format!("{} {tokens}?", action.verb);
    terminal::confirm(&format!("{}{question}", action.consequence), || {
        format!("{question} Nothing was changed; use --yes to confirm")
    })
}

/// The result of changing each token: lines without the name of the token, or an error.
#[derive(Default)]
pub struct Outcomes(Vec<(Target, Result<Vec<String>, Error>)>);

impl Outcomes {
    /// Changes each token in turn, also after an error. If the API server does not respond, the rest is not tried.
    pub async fn of(
        session: &Session,
        targets: Vec<Target>,
        change: impl AsyncFn(&Session, &Target) -> Result<String, Error>,
    ) -> Self {
        let mut outcomes = Self::default();
        let mut has_timed_out = false;
        for target in targets {
            let result = match has_timed_out {
                true => Err(Error::Refused("not tried, because the API server did not respond before".into())),
                false => change(&session.in_namespace(&target.namespace), &target).await,
            };
            has_timed_out |= matches!(result, Err(Error::Timeout(_)));
            outcomes.0.push((target, result.map(|line| vec![line])));
        }
        outcomes
    }

    /// Does another step for each token that was changed.
    pub async fn then(
        mut self,
        session: &Session,
        step: impl AsyncFn(&Session, &Target) -> Result<String, Error>,
    ) -> Self {
        for (target, result) in &mut self.0 {
            if let Ok(lines) = result {
                match step(&session.in_namespace(&target.namespace), target).await {
                    Ok(line) => lines.push(line),
                    Err(error) => *result = Err(error),
                }
            }
        }
        self
    }

    /// Describes the changes. If some failed, the output is a table of all of them, and the command fails. `what` says what was asked
    /// for, such as `rotated`.
    ///
    /// # Errors
    /// The change of a single token failed.
    pub fn describe(mut self, args: &TargetArgs, paint: Paint, what: &str) -> Result<CommandOutput, Error> {
        let total = self.0.len();
        let failed = self.0.iter().filter(|(_, result)| result.is_err()).count();
        if total == 1
            && let Some((_, Err(error))) = self.0.pop_if(|(_, result)| result.is_err())
        {
            return Err(error);
        }
        let label = |target: &Target| match args.all_namespaces {
            true => format!("{}/{}", target.namespace, target.name),
            false => target.name.clone(),
        };
        if failed == 0 {
            let lines = self.0.into_iter().flat_map(|(target, lines)| {
                let label = label(&target);
                lines.unwrap_or_default().into_iter().map(move |line| format!("{label} {line}\n"))
            });
            return Ok(CommandOutput::success(lines.collect::<String>()));
        }
        let mut table = Table::new(&["NAMESPACE", "NAME", "RESULT", "MESSAGE"]);
        let mut exits = Vec::new();
        for (target, result) in self.0 {
            let (tone, word, message) = match result {
                Ok(lines) => (Tone::Good, "ok", lines.join("; ")),
                Err(error) => {
                    exits.push(error.exit());
                    (Tone::Bad, "failed", error.to_string())
                }
            };
            let cells = [(Tone::Plain, target.namespace), (Tone::Plain, target.name), (tone, word.to_owned())];
            table.add_row(cells.into_iter().chain([(Tone::Plain, plain(&message))]).collect());
        }
        let timed_out = exits.iter().all(|exit| *exit == Exit::TimedOut);
        let exit = if timed_out { Exit::TimedOut } else { Exit::Failed };
        let mut output = CommandOutput::with_exit(table.render(paint, 0), exit);
        output.errors.push(format!("{failed} of {total} tokens were not {what}; the table says why"));
        Ok(output)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plugin::terminal::Color;

    fn outcome(name: &str, result: Result<&str, Error>) -> (Target, Result<Vec<String>, Error>) {
        let target = Target { namespace: "shop".into(), name: name.into(), uid: None };
        (target, result.map(|line| vec![line.to_owned()]))
    }

    fn args(all_namespaces: bool) -> TargetArgs {
        TargetArgs { names: Vec::new(), selector: None, all_namespaces, yes: true }
    }

    #[test]
    fn partial_failure_is_a_table_and_an_error() {
        let refused = || Err(Error::Refused("a: no".into()));
        let timed_out = || Err(Error::TimedOut("a: late".into()));
        for (second, exit) in [(refused(), Exit::Failed), (timed_out(), Exit::TimedOut)] {
            let outcomes = Outcomes(vec![outcome("good", Ok("done")), outcome("bad", second)]);
            let output = outcomes.describe(&args(false), Paint::new(Color::Never, false), "rotated").unwrap();
            assert_eq!(output.exit, exit);
            assert!(output.text.starts_with("NAMESPACE   NAME   RESULT   MESSAGE\nshop        good   ok       done\n"));
            assert_eq!(output.errors, ["1 of 2 tokens were not rotated; the table says why"]);
        }
        let both = Outcomes(vec![outcome("a", refused()), outcome("b", timed_out())]);
        assert_eq!(both.describe(&args(false), Paint::plain(), "rotated").unwrap().exit, Exit::Failed);
        let one = Outcomes(vec![outcome("a", timed_out())]);
        assert!(
            one.describe(&args(false), Paint::plain(), "rotated").is_err_and(|error| error.exit() == Exit::TimedOut)
        );
    }

    #[test]
    fn success_is_one_line_for_each_result() {
        let text = |all| {
            let outcomes = Outcomes(vec![outcome("a", Ok("done")), outcome("b", Ok("done"))]);
            outcomes.describe(&args(all), Paint::plain(), "rotated").unwrap().text.to_string()
        };
        assert_eq!(text(false), "a done\nb done\n");
        assert_eq!(text(true), "shop/a done\nshop/b done\n");
    }
}
