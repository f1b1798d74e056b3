//! The documentation of `kubectl pat`: every command in it is valid.

use std::{fs, path::Path};

use clap::{CommandFactory, Parser};
use pat_operator::plugin::{cli::PluginCli, output::Exit};

fn page(name: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(name))
        .unwrap_or_else(|error| panic!("{name}: {error}"))
}

/// Every `kubectl pat …`, to the end of its line, code span or part of a pipe.
fn commands(text: &str) -> Vec<String> {
    let ends = ['\n', '`', '|', '>', '#', ')', ';', '<'];
    let after = text.match_indices("kubectl pat ").map(|(at, _)| &text[at..]);
    let lines = after.map(|rest| rest.split(ends).next().unwrap_or_default().trim().to_owned());
    // A usage line has brackets.
    lines.filter(|line| !line.contains("COMMAND") && !line.contains('[') && !line.ends_with("kubectl pat")).collect()
}

#[test]
fn every_command_in_docs_and_help_is_valid() {
    let mut texts =
        vec![page("docs/kubectl-pat.md"), page("README.md"), PluginCli::command().render_long_help().to_string()];
    let mut root = PluginCli::command();
    root.build();
    for command in root.get_subcommands_mut() {
        let help = command.render_long_help().to_string();
        let lines = help.lines().filter(|line| !line.trim_start().starts_with("Usage:"));
        // A description follows two spaces.
        texts.push(lines.map(|line| line.trim().split("  ").next().unwrap_or_default().to_owned() + "\n").collect());
    }
    let mut seen = 0;
    for line in texts.iter().flat_map(|text| commands(text)) {
        let words = line.split_whitespace().skip(2).filter(|word| !word.starts_with("2>"));
        match PluginCli::try_parse_from(["kubectl-pat"].into_iter().chain(words)) {
            Err(error) if error.exit_code() != 0 => panic!("{line}: {error}"),
            _ => seen += 1,
        }
    }
    assert!(seen > 50, "{seen}");
}

#[test]
fn page_lists_every_command_and_exit_code() {
    let text = page("docs/kubectl-pat.md");
    for command in PluginCli::command().get_subcommands().filter(|command| !command.is_hide_set()) {
        assert!(text.contains(&format!("kubectl pat {}", command.get_name())), "{}", command.get_name());
    }
    for exit in [Exit::Success, Exit::Failed, Exit::Usage, Exit::NotValid, Exit::TimedOut] {
        assert!(text.contains(&format!("\n| {} | ", exit.code())), "{exit:?}");
    }
}
