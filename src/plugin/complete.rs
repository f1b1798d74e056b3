//! What `kubectl pat <tab>` offers: commands, flags, their values, and the names of tokens.
//!
//! kubectl speaks as cobra's programs do: one offer a line, a tab before what it means, and at the end `:4`, which says that no file
//! names are wanted. It never fails: no offer is a good answer to somebody who only pressed a key.

use std::time::Duration;

use clap::{Arg, CommandFactory};

use super::{
    cli::{Cli, ClusterArgs},
    session::Session,
    terminal::Color,
};

/// A key press waits for no longer.
const LIMIT: Duration = Duration::from_secs(3);

/// The offers for these words, the last of which is being typed.
pub async fn answer(words: &[String]) -> String {
    let (typed, before) = words.split_last().map_or(("", &[][..]), |(last, before)| (last.as_str(), before));
    let root = Cli::command();
    let scan = Scan::of(&root, before);
    let mut offers: Vec<(String, String)> = match &scan.wants {
        Some(arg) => values(arg),
        None if typed.starts_with('-') => flags(&root, scan.command),
        None if scan.command.is_none() => commands(&root),
        None => scan.position().map(values).unwrap_or_default(),
    };
    let wants_name = scan.wants.is_none() && !typed.starts_with('-') && scan.takes_names();
    if wants_name {
        offers.extend(tokens(before).await.into_iter().map(|name| (name, String::new())));
    } else if scan.wants.as_ref().is_some_and(|arg| arg.get_id() == "namespace") {
        offers.extend(namespaces(before).await.into_iter().map(|name| (name, String::new())));
    }
    let mut text = String::new();
    for (offer, about) in offers.iter().filter(|(offer, _)| offer.starts_with(typed)) {
        text.push_str(offer);
        if !about.is_empty() {
            text.push_str(&format!("\t{about}"));
        }
        text.push('\n');
    }
    // 4: no file names; 0: those as well, where a flag wants a file.
    let wants_file =
        scan.wants.as_ref().is_some_and(|arg| arg.get_value_names().is_some_and(|names| names[0] == "FILE"));
    text.push_str(if wants_file { ":0\n" } else { ":4\n" });
    text
}

/// What has been typed before the cursor.
struct Scan<'a> {
    command: Option<&'a clap::Command>,
    /// The flag whose value is being typed.
    wants: Option<&'a Arg>,
    /// How many positional words there are after the command.
    positions: usize,
}

impl<'a> Scan<'a> {
    fn of(root: &'a clap::Command, words: &[String]) -> Self {
        let mut scan = Self { command: None, wants: None, positions: 0 };
        for word in words {
            if scan.wants.take().is_some() {
                continue;
            }
            if word.starts_with('-') {
                scan.wants = scan.flag(root, word).filter(|arg| arg.get_action().takes_values());
            } else if scan.command.is_none() {
                scan.command = root.find_subcommand(word);
            } else {
                scan.positions += 1;
            }
        }
        scan
    }

    fn flag(&self, root: &'a clap::Command, word: &str) -> Option<&'a Arg> {
        let args = root.get_arguments().chain(self.command.into_iter().flat_map(clap::Command::get_arguments));
        let mut args = args.filter(|arg| !arg.is_positional());
        match word.strip_prefix("--") {
            Some(long) => args.find(|arg| arg.get_long() == Some(long)),
            None => args
                .find(|arg| arg.get_short().is_some_and(|short| word.strip_prefix('-') == Some(&*short.to_string()))),
        }
    }

    /// The argument at the cursor's place.
    fn position(&self) -> Option<&'a Arg> {
        let command = self.command?;
        let all: Vec<_> = command.get_positionals().collect();
        let last = all.last().filter(|arg| arg.get_num_args().is_some_and(|range| range.max_values() > 1));
        all.get(self.positions).or(last).copied()
    }

    /// Whether it is the name of a token that is there.
    fn takes_names(&self) -> bool {
        let is_new = self.command.is_some_and(|command| command.get_name() == "create");
        !is_new && self.position().is_some_and(|arg| matches!(arg.get_id().as_str(), "name" | "names"))
    }
}

fn commands(root: &clap::Command) -> Vec<(String, String)> {
    let shown = root.get_subcommands().filter(|command| !command.is_hide_set());
    shown.map(|command| (command.get_name().to_owned(), about(command.get_about()))).collect()
}

fn flags(root: &clap::Command, command: Option<&clap::Command>) -> Vec<(String, String)> {
    let args = command.into_iter().flat_map(clap::Command::get_arguments).chain(root.get_arguments());
    args.filter_map(|arg| Some((format!("--{}", arg.get_long()?), about(arg.get_help())))).collect()
}

fn values(arg: &Arg) -> Vec<(String, String)> {
    let values = arg.get_possible_values().into_iter();
    values.map(|value| (value.get_name().to_owned(), about(value.get_help()))).collect()
}

fn about(text: Option<&clap::builder::StyledStr>) -> String {
    text.map_or_else(String::new, ToString::to_string)
}

/// The flags of the cluster, as far as they have been typed.
fn cluster(words: &[String]) -> ClusterArgs {
    let value = |names: &[&str]| {
        let mut pairs = words.iter().zip(words.iter().skip(1));
        let apart = pairs.find(|(flag, _)| names.contains(&flag.as_str())).map(|(_, value)| value.clone());
        let joined = || {
            words.iter().find_map(|word| {
                names.iter().find_map(|name| Some(word.strip_prefix(name)?.strip_prefix('=')?.to_owned()))
            })
        };
        apart.or_else(joined)
    };
    ClusterArgs {
        kubeconfig: value(&["--kubeconfig"]).map(Into::into),
        context: value(&["--context"]),
        namespace: value(&["-n", "--namespace"]),
        color: Color::Never,
    }
}

async fn tokens(words: &[String]) -> Vec<String> {
    let asked = async {
        let session = Session::open(&cluster(words)).await.ok()?;
        let pats = session.list(Some(&session.namespace), None).await.ok()?;
        Some(pats.iter().map(|pat| pat.name().to_owned()).collect())
    };
    tokio::time::timeout(LIMIT, asked).await.ok().flatten().unwrap_or_default()
}

async fn namespaces(words: &[String]) -> Vec<String> {
    let asked = async {
        let session = Session::open(&cluster(words)).await.ok()?;
        let api: kube::Api<k8s_openapi::api::core::v1::Namespace> = kube::Api::all(session.client);
        let all = api.list_metadata(&kube::api::ListParams::default()).await.ok()?;
        Some(all.items.into_iter().filter_map(|one| one.metadata.name).collect())
    };
    tokio::time::timeout(LIMIT, asked).await.ok().flatten().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn offers(words: &[&str]) -> Vec<String> {
        let words: Vec<_> = words.iter().map(|word| (*word).to_owned()).collect();
        let text = answer(&words).await;
        text.lines().map(|line| line.split('\t').next().unwrap_or_default().to_owned()).collect()
    }

    #[tokio::test]
    async fn the_tab_key_offers_what_can_stand_there() {
        for (words, part) in [
            (&["re"][..], &["reveal", "revoke", ":4"][..]),
            (&["wait", "ci", "--for", ""], &["ready", "rotation", "dead", ":4"]),
            (&["list", "--al"], &["--all-namespaces", ":4"]),
            (&["completion", "b"], &["bash", ":4"]),
            (&["list", "--kubeconfig", ""], &[":0"]),
        ] {
            assert_eq!(offers(words).await, part, "{words:?}");
        }
        let first = offers(&[""]).await;
        assert!(first.contains(&"doctor".to_owned()) && !first.contains(&"__complete".to_owned()), "{first:?}");
    }
}
