//! Draws the pictures of `docs/concepts.md` from what the planner does.
//!
//! The positions of boxes are fixed. The arrows, the order and times of states, and the content of the Secret come from the stories.

use std::{collections::BTreeMap, fmt::Write};

use pat_operator::api::{Credential, CredentialState, Time};
use serde_json::json;

use super::{
    checked_in,
    simulation::{Frame, Simulation},
    stories::{STATES, TRANSITIONS},
};

/// A transition of a credential: the states before and after, its cause, the line of the arrow and the position of its text. A credential
/// that is not in the status has no state.
struct Arrow {
    from: Option<CredentialState>,
    to: Option<CredentialState>,
    about: &'static [&'static str],
    line: &'static str,
    text: (u16, u16),
}

use CredentialState::{Active, Grace, Pending, Revoking};

const ARROWS: [Arrow; 7] = [
    Arrow {
        from: None,
        to: Some(Pending),
        about: &["a token is minted:", "its hash is published"],
        line: "M 40 118 H 184",
        text: (112, 86),
    },
    Arrow {
        from: Some(Pending),
        to: Some(Active),
        about: &["the Secret holds it"],
        line: "M 360 118 H 494",
        text: (428, 106),
    },
    Arrow {
        from: Some(Active),
        to: Some(Grace),
        about: &["the Secret holds", "its successor"],
        line: "M 670 118 H 804",
        text: (738, 90),
    },
    Arrow {
        from: Some(Pending),
        to: None,
        about: &["it cannot reach the Secret", "any more, or it is revoked"],
        line: "M 275 146 V 280 H 569",
        text: (424, 254),
    },
    Arrow {
        from: Some(Active),
        to: None,
        about: &["it ends,", "or it is revoked"],
        line: "M 585 146 V 264",
        text: (646, 196),
    },
    Arrow {
        from: Some(Grace),
        to: None,
        about: &["the grace period is over,", "or it is revoked"],
        line: "M 895 146 V 280 H 601",
        text: (750, 254),
    },
    Arrow {
        from: None,
        to: Some(Active),
        about: &["a lost status is rebuilt from the Secret"],
        line: "M 30 108 V 44 H 585 V 84",
        text: (300, 34),
    },
];

#[test]
fn states_picture_matches_the_transitions_of_the_stories() {
    let mut seen: BTreeMap<String, &str> = BTreeMap::new();
    for (name, story) in STATES.iter().chain(TRANSITIONS) {
        let mut before: &[Credential] = &[];
        for frame in &story().frames {
            for (from, to) in steps(before, &frame.credentials) {
                seen.entry(step(from, to)).or_insert(name);
            }
            before = &frame.credentials;
        }
    }
    let mut drawn: Vec<_> = ARROWS.iter().map(|arrow| step(arrow.from, arrow.to)).collect();
    drawn.sort();
    let met: Vec<_> = seen.keys().cloned().collect();
    assert_eq!(drawn, met, "the arrows must match the transitions of the stories: {seen:#?}");
    checked_in::compare("docs/images/credential-states.svg", &states());
}

#[test]
fn rotation_picture_matches_the_planner() {
    checked_in::compare("docs/images/rotation.svg", &rotation());
}

fn step(from: Option<CredentialState>, to: Option<CredentialState>) -> String {
    let name = |state: Option<CredentialState>| state.map_or("nothing", |state| state.as_str());
    format!("{} to {}", name(from), name(to))
}

type Step = (Option<CredentialState>, Option<CredentialState>);

/// The transitions of all credentials between two frames.
fn steps(before: &[Credential], after: &[Credential]) -> Vec<Step> {
    let state = |all: &[Credential], id: &str| all.iter().find(|one| one.id.as_str() == id).map(|one| one.state);
    let ids = before.iter().chain(after).map(|one| one.id.as_str());
    ids.map(|id| (state(before, id), state(after, id))).filter(|(from, to)| from != to).collect()
}

/// The fill and ink of a state.
fn colours(state: CredentialState) -> (&'static str, &'static str) {
    match state {
        Pending => ("#fff4d6", "#9a6700"),
        Active => ("#dafbe1", "#1a7f37"),
        Grace | Revoking => ("#e8ecf1", "#57606a"),
    }
}

const INK: &str = "#1f2328";

fn svg(width: u16, height: u16, title: &str, inside: &str) -> String {
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" width=\"{width}\" height=\"{height}\" \
         font-family=\"system-ui, sans-serif\" font-size=\"13\" role=\"img\">\n<!-- Drawn by tests/docs/pictures.rs: `make generate`. -->\n\
         <title>{title}</title>\n<rect width=\"{width}\" height=\"{height}\" rx=\"8\" fill=\"#ffffff\"/>\n{inside}</svg>\n"
    )
}

fn text(x: u16, y: u16, colour: &str, anchor: &str, text: &str) -> String {
    format!("<text x=\"{x}\" y=\"{y}\" fill=\"{colour}\" text-anchor=\"{anchor}\">{text}</text>\n")
}

fn states() -> String {
    let mut inside = format!(
        "<defs><marker id=\"tip\" viewBox=\"0 0 8 8\" refX=\"7\" refY=\"4\" markerWidth=\"8\" markerHeight=\"8\" orient=\"auto\">\
         <path d=\"M 0 0 L 8 4 L 0 8 z\" fill=\"{INK}\"/></marker></defs>\n"
    );
    for arrow in &ARROWS {
        let _ =
            writeln!(inside, "<path d=\"{}\" fill=\"none\" stroke=\"{INK}\" marker-end=\"url(#tip)\"/>", arrow.line);
        for (number, line) in arrow.about.iter().enumerate() {
            let (x, y) = arrow.text;
            inside.push_str(&text(x, y + 16 * u16::try_from(number).expect("a few"), "#57606a", "middle", line));
        }
    }
    let _ = writeln!(inside, "<circle cx=\"30\" cy=\"118\" r=\"8\" fill=\"{INK}\"/>");
    let _ = writeln!(inside, "<circle cx=\"585\" cy=\"280\" r=\"10\" fill=\"none\" stroke=\"{INK}\"/>");
    let _ = writeln!(inside, "<circle cx=\"585\" cy=\"280\" r=\"6\" fill=\"{INK}\"/>");
    inside.push_str(&text(585, 318, INK, "middle", "ended: removed from the status for good"));
    for (x, state, about) in [
        (190, Pending, "accepted; not in the Secret"),
        (500, Active, "accepted; in the Secret"),
        (810, Grace, "accepted; replaced"),
    ] {
        let (fill, ink) = colours(state);
        let _ = writeln!(
            inside,
            "<rect x=\"{x}\" y=\"{}\" width=\"170\" height=\"56\" rx=\"8\" fill=\"{fill}\" stroke=\"{ink}\"/>",
            90
        );
        inside.push_str(&text(
            x + 85,
            114,
            ink,
            "middle",
            &format!("<tspan font-weight=\"bold\">{}</tspan>", state.as_str()),
        ));
        inside.push_str(&text(x + 85, 134, ink, "middle", about));
    }
    svg(1000, 336, "The states of a credential", &inside)
}

/// A first token, a rotation, and the end of the grace period.
fn life() -> Vec<Frame> {
    let mut simulation =
        Simulation::new(json!({"rotation": {"interval": "30d"}, "secret": {"previousKey": "previous"}}));
    simulation.run();
    // The rotation: the hash is published, and the Secret follows once verifiers have seen it.
    for _ in 0..2 {
        simulation.advance_until_due();
        simulation.run();
    }
    simulation.advance_until_due();
    simulation.run();
    simulation.frames().to_vec()
}

const LEFT: u16 = 150;
const COLUMN: u16 = 112;
const ROW: u16 = 40;
const TOP: u16 = 84;

fn rotation() -> String {
    let frames = life();
    let begin = frames.first().expect("a frame").at;
    // The numbers of tokens are those of their first appearance, because ids are random.
    let mut tokens: Vec<String> = Vec::new();
    for frame in &frames {
        for credential in frame.credentials.iter().rev() {
            if !tokens.contains(&credential.id.to_string()) {
                tokens.push(credential.id.to_string());
            }
        }
    }
    let columns = u16::try_from(frames.len()).expect("a few");
    let (width, mut inside) = (LEFT + COLUMN * columns + 16, String::new());
    let mut before: Option<Time> = None;
    for (frame, column) in frames.iter().zip(0..) {
        let x = LEFT + COLUMN * column;
        let new = before != Some(frame.at);
        if new {
            inside.push_str(&text(
                x + 6,
                28,
                INK,
                "start",
                &format!("<tspan font-weight=\"bold\">{}</tspan>", since(begin, frame.at)),
            ));
        }
        let dash = if new { "" } else { " stroke-dasharray=\"2 3\"" };
        let rows = u16::try_from(tokens.len() + 2).expect("a few");
        let _ = writeln!(
            inside,
            "<line x1=\"{x}\" y1=\"{}\" x2=\"{x}\" y2=\"{}\" stroke=\"#d0d7de\"{dash}/>",
            if new { 14 } else { 40 },
            TOP + ROW * rows + 12
        );
        inside.push_str(&text(x + 6, 48, "#57606a", "start", "write of the"));
        inside.push_str(&text(x + 6, 64, "#57606a", "start", frame.what));
        before = Some(frame.at);
    }
    let mut row = |number: u16, name: &str, cells: Vec<Option<(String, &str, &str)>>| {
        let y = TOP + ROW * number;
        inside.push_str(&text(12, y + 20, INK, "start", name));
        let mut at = 0;
        while at < cells.len() {
            let Some((label, fill, ink)) = &cells[at] else {
                at += 1;
                continue;
            };
            let length =
                cells[at..].iter().take_while(|cell| cell.as_ref().is_some_and(|cell| cell.0 == *label)).count();
            let (x, wide) =
                (LEFT + COLUMN * u16::try_from(at).expect("a few"), COLUMN * u16::try_from(length).expect("a few"));
            let _ = writeln!(
                inside,
                "<rect x=\"{}\" y=\"{y}\" width=\"{}\" height=\"30\" rx=\"4\" fill=\"{fill}\" stroke=\"{ink}\"/>",
                x + 2,
                wide - 4
            );
            inside.push_str(&text(x + wide / 2, y + 20, ink, "middle", label));
            at += length;
        }
    };
    let number = |id: &str| tokens.iter().position(|one| one == id).expect("the token has a number") + 1;
    let mut line = 0;
    for id in &tokens {
        let cells = frames.iter().map(|frame| {
            let state = frame.credentials.iter().find(|one| one.id.as_str() == *id)?.state;
            let (fill, ink) = colours(state);
            Some((state.as_str().to_owned(), fill, ink))
        });
        row(line, &format!("token {}", number(id)), cells.collect());
        line += 1;
    }
    for key in ["token", "previous"] {
        let cells = frames.iter().map(|frame| {
            let id = frame.secret.get(key)?;
            Some((format!("token {}", number(id)), "#ddf4ff", "#0969da"))
        });
        row(line, &format!("Secret, key {key}"), cells.collect());
        line += 1;
    }
    svg(width, TOP + ROW * line + 24, "A rotation, write by write", &inside)
}

/// The time since the start, in words.
fn since(begin: Time, at: Time) -> String {
    let seconds = at.since(begin).as_secs();
    let (days, rest) = (seconds / 86_400, seconds % 86_400);
    let (hours, minutes, seconds) = (rest / 3600, rest % 3600 / 60, rest % 60);
    if days == 0 && rest == 0 {
        return "the beginning".to_owned();
    }
    format!("{days} d {hours:02}:{minutes:02}:{seconds:02}")
}
