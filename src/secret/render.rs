//! A layout and a token become the data of a Secret, or, of what is public, a hash.
//!
//! It must not decide when either is wanted.

use std::{borrow::Cow, collections::BTreeMap};

use serde::{Deserialize, de::IgnoredAny};

use super::{
    Facts, Layout, Rendered,
    buffer::{Buffer, TooLarge},
    hash::{Digest, Fingerprint},
    layout::{BASIC_AUTH, BASIC_AUTH_KEYS, Body, DOCKER_CONFIG_JSON, DOCKER_CONFIG_JSON_KEY, data_field},
    variable::Variable,
};
use crate::api::InvalidField;

/// Raise the number when the same input begins to render differently: every Secret is then written anew, once.
const FORMAT: &str = "pat-operator render 1";

impl Layout {
    /// The hash of everything that decides [`Layout::render`] but the tokens themselves, for which their ids stand: 64
    /// lower-case hexadecimal digits. Facts that nothing refers to do not count, so that a change of them writes nothing.
    pub fn render_hash(&self, facts: &Facts<'_>) -> Digest {
        let facts = Facts { previous_id: facts.previous_id.filter(|_| self.wants_previous()), ..*facts };
        let mut hash = Fingerprint::new(FORMAT);
        hash.text(&self.type_).map(&self.labels).map(&self.annotations);
        hash.text(&self.key).optional(self.previous_key.as_deref());
        hash.text(facts.id).optional(facts.previous_id);
        match &self.body {
            Body::Nothing => {
                hash.text("nothing");
            }
            Body::Preset(form) => form.fingerprint(&mut hash),
            Body::Templates { templates, subject } => {
                hash.text("templates").count(templates.len());
                for (key, template) in templates {
                    hash.text(key);
                    template.fingerprint(|variable| variable.public(subject, &facts), &mut hash);
                }
            }
        }
        hash.digest()
    }

    /// The data of the Secret. `token` and `previous` are tokens as [`crate::token`] makes them; `previous` counts only
    /// where [`Layout::wants_previous`], and `facts.previous_id` is its id.
    ///
    /// # Errors
    /// Data of more than [`MAX_DATA`](super::MAX_DATA) bytes, and a `.dockerconfigjson` that is none. [`Layout::read`] has
    /// looked for both.
    pub fn render(&self, token: &str, previous: Option<&str>, facts: &Facts<'_>) -> Result<Rendered, InvalidField> {
        let previous = self.previous_key.as_deref().zip(previous);
        let facts = Facts { previous_id: facts.previous_id.filter(|_| previous.is_some()), ..*facts };
        let mut data = Rendered::default();
        data.put(&self.key, Buffer::of(token, data.room())).map_err(too_large("spec.secret.key"))?;
        if let Some((key, previous)) = previous {
            data.put(key, Buffer::of(previous, data.room())).map_err(too_large("spec.secret.previousKey"))?;
        }
        match &self.body {
            Body::Nothing => {}
            Body::Preset(form) => {
                let field = "spec.secret.template.preset";
                let values = form.render(token, data.room()).map_err(too_large(field))?;
                for (key, value) in form.keys().iter().zip(values) {
                    data.put(key, Ok(value)).map_err(too_large(field))?;
                }
            }
            Body::Templates { templates, subject } => {
                let value = |variable: Variable| {
                    let secret = if variable == Variable::Token { token } else { previous.unwrap_or_default().1 };
                    variable.public(subject, &facts).unwrap_or(Cow::Borrowed(secret))
                };
                for (key, template) in templates {
                    let text = template.render(value, data.room());
                    data.put(key, text).map_err(too_large(&data_field(key)))?;
                }
            }
        }
        if self.type_ == DOCKER_CONFIG_JSON && !data.get(DOCKER_CONFIG_JSON_KEY).is_some_and(is_docker_config) {
            let message =
                "the type kubernetes.io/dockerconfigjson needs a JSON object with an object \"auths\" in it here";
            return Err(InvalidField::new(data_field(DOCKER_CONFIG_JSON_KEY), message));
        }
        Ok(data)
    }
}

/// What is left of a Secret's data when no token is live: the keys that its type requires, empty but valid; the API server
/// refuses a Secret without them. It asks for the type alone: a token must be wiped even where the spec can no longer be read.
pub fn blank(type_: &str) -> Rendered {
    let blanks: &[(&str, &str)] = match type_ {
        DOCKER_CONFIG_JSON => &[(DOCKER_CONFIG_JSON_KEY, r#"{"auths":{}}"#)],
        BASIC_AUTH => &BASIC_AUTH_KEYS.map(|key| (key, "")),
        _ => &[],
    };
    Rendered(blanks.iter().map(|&(key, value)| (key.to_owned(), value.as_bytes().to_vec().into())).collect())
}

fn too_large(field: &str) -> impl FnOnce(TooLarge) -> InvalidField {
    let message = "with this the Secret's values come to more than 64 KiB together: make the texts shorter";
    move |TooLarge| InvalidField::new(field, message)
}

/// Whether kubelet and docker can make something of it. The values, where the token is, are skipped over, not copied.
fn is_docker_config(json: &[u8]) -> bool {
    #[derive(Deserialize)]
    struct Config {
        #[serde(rename = "auths")]
        _auths: BTreeMap<String, IgnoredAny>,
    }
    // Derived code takes an array for a struct as well.
    json.trim_ascii_start().starts_with(b"{") && serde_json::from_slice::<Config>(json).is_ok()
}
