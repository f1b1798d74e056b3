//! Renders a layout and a token to the data of a Secret, and hashes the layout and the public facts, to detect a changed spec.

use std::{borrow::Cow, collections::BTreeMap, fmt};

use serde::{Deserialize, de::IgnoredAny};
use sha2::{Digest as _, Sha256};
use zeroize::Zeroizing;

use super::{
    MAX_DATA,
    buffer::{Buffer, TooLarge},
    hash::{Digest, Fingerprint, data_hash},
    layout::{BASIC_AUTH, BASIC_AUTH_KEYS, Body, DOCKER_CONFIG_JSON, DOCKER_CONFIG_JSON_KEY, Layout, data_field},
    placeholder::{TemplateFacts, TemplateVariable},
};
use crate::api::InvalidField;

/// The version of the format. Increase it when the same input renders differently: every Secret is then written again.
const FORMAT: &str = "pat-operator render 1";

impl Layout {
    /// Returns the hash of everything that [`Layout::render`] depends on, with the IDs in place of the tokens. Facts that no template uses
    /// are left out, so that their changes write nothing.
    pub fn render_hash(&self, facts: &TemplateFacts<'_>) -> Digest {
        let facts = TemplateFacts { previous_id: facts.previous_id.filter(|_| self.wants_previous()), ..*facts };
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

    /// Renders the data of the Secret. `previous` is used only if [`Layout::wants_previous`]; `facts.previous_id` is
    /// its ID.
    ///
    /// # Errors
    /// Data of more than [`MAX_DATA`] bytes, and an invalid `.dockerconfigjson`. [`Layout::read`] has checked for both.
    pub fn render(
        &self,
        token: &str,
        previous: Option<&str>,
        facts: &TemplateFacts<'_>,
    ) -> Result<Rendered, InvalidField> {
        let previous = self.previous_key.as_deref().zip(previous);
        let facts = TemplateFacts { previous_id: facts.previous_id.filter(|_| previous.is_some()), ..*facts };
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
                let value = |variable: TemplateVariable| {
                    let secret =
                        if variable == TemplateVariable::Token { token } else { previous.unwrap_or_default().1 };
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
                "the type kubernetes.io/dockerconfigjson needs a JSON object here that contains an object \"auths\"";
            return Err(InvalidField::new(data_field(DOCKER_CONFIG_JSON_KEY), message));
        }
        Ok(data)
    }
}

/// Returns the data of a Secret when no token is live: the keys that its type requires, with empty but valid values, because the API
/// server refuses a Secret without them. It depends only on the type, so that a token can be removed even if the spec is invalid.
pub fn cleared_data(type_: &str) -> Rendered {
    let required: &[(&str, &str)] = match type_ {
        DOCKER_CONFIG_JSON => &[(DOCKER_CONFIG_JSON_KEY, r#"{"auths":{}}"#)],
        BASIC_AUTH => &BASIC_AUTH_KEYS.map(|key| (key, "")),
        _ => &[],
    };
    Rendered(required.iter().map(|&(key, value)| (key.to_owned(), value.as_bytes().to_vec().into())).collect())
}

fn too_large(field: &str) -> impl FnOnce(TooLarge) -> InvalidField {
    let message = "the values of the Secret are larger than 64 KiB in total: shorten the templates";
    move |TooLarge| InvalidField::new(field, message)
}

/// Whether kubelet and docker can parse it. The values, which contain the token, are skipped and not copied.
fn is_docker_config(json: &[u8]) -> bool {
    #[derive(Deserialize)]
    struct Config {
        #[serde(rename = "auths")]
        _auths: BTreeMap<String, IgnoredAny>,
    }
    // serde would also accept an array.
    json.trim_ascii_start().starts_with(b"{") && serde_json::from_slice::<Config>(json).is_ok()
}

/// The data of a Secret: at most [`MAX_DATA`] bytes, zeroized when dropped. `Debug` shows the keys only.
#[derive(Default, PartialEq, Eq)]
pub struct Rendered(pub(super) BTreeMap<String, Zeroizing<Vec<u8>>>);

impl Rendered {
    /// Every key with its value, sorted by key.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &[u8])> {
        self.0.iter().map(|(key, value)| (key.as_str(), value.as_slice()))
    }

    /// Every key, sorted.
    pub fn keys(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }

    /// The value under `key`.
    pub fn get(&self, key: &str) -> Option<&[u8]> {
        self.0.get(key).map(|value| value.as_slice())
    }

    /// The [`data_hash`](super::data_hash) of this data.
    pub fn hash(&self) -> Digest {
        data_hash(self.iter().map(|(key, value)| (key, Sha256::digest(value).into())))
    }

    /// Returns how many more bytes fit.
    pub(super) fn room(&self) -> usize {
        MAX_DATA.saturating_sub(self.0.values().map(|value| value.len()).sum())
    }

    /// Adds or replaces a value, if there is one and it fits.
    pub(super) fn put(&mut self, key: &str, value: Result<Buffer, TooLarge>) -> Result<(), TooLarge> {
        let value = value?;
        if value.as_str().len() > self.room() {
            return Err(TooLarge);
        }
        self.0.insert(key.to_owned(), value.into_bytes());
        Ok(())
    }
}

impl fmt::Debug for Rendered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Rendered")?;
        f.debug_set().entries(self.keys()).finish()
    }
}
