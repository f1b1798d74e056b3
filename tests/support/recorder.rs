//! Records each version of the PATs and Secrets of a namespace, and then checks the invariants at each moment of their history.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    io,
    sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use futures::StreamExt;
use k8s_openapi::{api::core::v1::Secret, jiff::SignedDuration};
use kube::{
    Api, Client, Resource, ResourceExt,
    api::{ApiResource, DynamicObject, ListParams},
    runtime::{watcher, watcher::Event},
};
use pat_operator::{
    api::{Credential, CredentialState, DeliveryState, PersonalAccessToken, PersonalAccessTokenSpec, StoredPat, Time},
    auth::verdict::{Terms, Verdict},
    controller::stores::version,
    planner::intent::Intent,
    service::Clock,
    token::Presented,
};
use tokio::task::JoinSet;

use super::stage::SOON;

/// A recorder of one namespace.
pub struct Recorder {
    client: Client,
    namespace: String,
    tape: Tape,
    /// The times that the driven clock showed, each with the resource version after which it did.
    moves: Mutex<Vec<(u64, Time)>>,
    _watches: JoinSet<()>,
}

#[derive(Clone, Default)]
struct Tape(Arc<Mutex<Recorded>>);

#[derive(Default)]
struct Recorded {
    versions: Vec<Version>,
    lists: usize,
}

/// A version of an object, or its deletion.
#[derive(Clone)]
struct Version {
    number: u64,
    name: String,
    seen_at: Time,
    object: Object,
}

#[derive(Clone)]
enum Object {
    Pat(Box<PersonalAccessToken>),
    NoPat,
    Secret(Box<Secret>),
    NoSecret,
}

impl Recorder {
    /// Starts to record. Returns when the watches have started. Report each move of a driven clock with [`Recorder::time_moves`].
    pub async fn start(client: &Client, namespace: &str, clock: &Clock) -> Self {
        let (tape, mut watches) = (Tape::default(), JoinSet::new());
        let resource = ApiResource::erase::<PersonalAccessToken>(&());
        let pats: Api<DynamicObject> = Api::namespaced_with(client.clone(), namespace, &resource);
        watches.spawn(tape.clone().follow(pats, clock.clone(), Object::of_pat, || Object::NoPat));
        let secrets: Api<Secret> = Api::namespaced(client.clone(), namespace);
        let of_secret = |secret: Secret| {
            canary::collect("metadata of a Secret", &serde_json::to_string(&secret.metadata).unwrap_or_default());
            Object::Secret(Box::new(secret))
        };
        watches.spawn(tape.clone().follow(secrets, clock.clone(), of_secret, || Object::NoSecret));
        let deadline = Instant::now() + SOON;
        while tape.read().lists < 2 {
            assert!(Instant::now() < deadline, "the recorder's watches do not start");
            tokio::time::sleep(Duration::from_millis(3)).await;
        }
        let moves = Mutex::new(vec![(0, clock.now().into())]);
        Self { client: client.clone(), namespace: namespace.into(), tape, moves, _watches: watches }
    }

    /// Records that the driven clock now shows `to`.
    pub async fn time_moves(&self, to: Time) {
        let secrets: Api<Secret> = Api::namespaced(self.client.clone(), &self.namespace);
        let list = secrets.list(&ListParams::default().limit(1)).await.expect("Secrets are listed");
        let number = version(list.metadata.resource_version.as_deref());
        self.moves.lock().unwrap_or_else(PoisonError::into_inner).push((number, to));
    }

    /// Waits until everything written so far is recorded.
    async fn catch_up(&self) {
        let pats: Api<PersonalAccessToken> = Api::namespaced(self.client.clone(), &self.namespace);
        let pats = pats.list(&ListParams::default()).await.expect("PATs are listed");
        let secrets: Api<Secret> = Api::namespaced(self.client.clone(), &self.namespace);
        let secrets = secrets.list(&ListParams::default()).await.expect("Secrets are listed");
        let wanted_pats: BTreeMap<_, _> = pats.iter().map(named).collect();
        let wanted_secrets: BTreeMap<_, _> = secrets.iter().map(named).collect();
        let deadline = Instant::now() + SOON;
        loop {
            let (mut last_pats, mut last_secrets) = (BTreeMap::new(), BTreeMap::new());
            for version in &self.tape.read().versions {
                match &version.object {
                    Object::Pat(_) => last_pats.insert(version.name.clone(), version.number),
                    Object::NoPat => last_pats.remove(&version.name),
                    Object::Secret(_) => last_secrets.insert(version.name.clone(), version.number),
                    Object::NoSecret => last_secrets.remove(&version.name),
                };
            }
            if last_pats == wanted_pats && last_secrets == wanted_secrets {
                return;
            }
            assert!(Instant::now() < deadline, "the recorder does not catch up");
            tokio::time::sleep(Duration::from_millis(3)).await;
        }
    }

    /// Checks the history of the PAT of this name, and of the Secrets whose names start with its name, on a driven clock. A write may
    /// arrive up to `late` after its decision.
    pub async fn judge(&self, name: &str, late: SignedDuration) -> Story {
        let moves = self.moves.lock().unwrap_or_else(PoisonError::into_inner).clone();
        self.judge_with(name, &moves, late).await
    }

    /// The same on the real clock. The time of a version is when the recorder saw it, which is a little late.
    pub async fn judge_in_real_time(&self, name: &str) -> Story {
        self.judge_with(name, &[], SignedDuration::from_secs(5)).await
    }

    async fn judge_with(&self, name: &str, moves: &[(u64, Time)], late: SignedDuration) -> Story {
        self.catch_up().await;
        let mut versions = self.tape.read().versions.clone();
        assert_eq!(self.tape.read().lists, 2, "a watch restarted, so versions may be missing");
        let others = format!("{name}-");
        versions.retain(|version| version.name == name || version.name.starts_with(&others));
        versions.sort_by_key(|version| version.number);
        let mut replay = Replay { late, ..Replay::default() };
        let mut moves = moves.iter().peekable();
        let mut now = None;
        for version in versions {
            while let Some((_, to)) = moves.next_if(|(number, _)| *number < version.number) {
                now = Some(*to);
                replay.look(*to);
            }
            replay.takes(version.object, version.name, now.unwrap_or(version.seen_at));
        }
        moves.for_each(|(_, to)| replay.look(*to));
        replay.story(name)
    }

    /// Each token that was ever in a Secret.
    pub fn tokens(&self) -> BTreeSet<String> {
        let mut tokens = BTreeSet::new();
        for version in &self.tape.read().versions {
            if let Object::Secret(secret) = &version.object {
                tokens.extend(values(secret).into_iter().map(|(_, value)| value));
            }
        }
        tokens.retain(|token| Presented::parse(token).is_ok());
        tokens
    }
}

fn named<K: Resource>(object: &K) -> (String, u64) {
    (object.name_any(), version(object.meta().resource_version.as_deref()))
}

impl Object {
    fn of_pat(object: DynamicObject) -> Self {
        canary::collect("a PersonalAccessToken", &serde_json::to_string(&object).unwrap_or_default());
        Self::Pat(Box::new(object.try_parse().expect("a valid PersonalAccessToken")))
    }
}

impl Tape {
    fn read(&self) -> MutexGuard<'_, Recorded> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn follow<K>(self, api: Api<K>, clock: Clock, there: impl Fn(K) -> Object, gone: fn() -> Object)
    where
        K: Resource + Clone + std::fmt::Debug + serde::de::DeserializeOwned + Send + 'static,
    {
        let mut events = watcher(api, watcher::Config::default().streaming_lists()).boxed();
        while let Some(event) = events.next().await {
            let (object, ended) = match event {
                Ok(Event::InitDone) => {
                    self.read().lists += 1;
                    continue;
                }
                Ok(Event::InitApply(object) | Event::Apply(object)) => (object, false),
                Ok(Event::Delete(object)) => (object, true),
                Ok(Event::Init) => continue,
                Err(_) => {
                    tokio::time::sleep(Duration::from_millis(50)).await;
                    continue;
                }
            };
            let (name, number) = named(&object);
            let object = if ended { gone() } else { there(object) };
            self.read().versions.push(Version { number, name, seen_at: clock.now().into(), object });
        }
    }
}

fn values(secret: &Secret) -> Vec<(String, String)> {
    let data = secret.data.iter().flatten();
    data.filter_map(|(key, value)| Some((key.clone(), String::from_utf8(value.0.clone()).ok()?))).collect()
}

/// The result of checking a history.
#[derive(Debug)]
pub struct Story {
    /// Violated invariants, with the time.
    pub violations: Vec<String>,
    /// States that must not remain once nothing is in progress.
    pub leftovers: Vec<String>,
    /// Published hashes whose token was never in a Secret. The next mint must remove them.
    pub orphans: usize,
    /// The number of checked moments.
    pub moments: usize,
    /// The history, one line for each version.
    pub lines: Vec<String>,
}

#[derive(Default)]
struct Replay {
    pat: Option<PersonalAccessToken>,
    secrets: BTreeMap<String, Secret>,
    /// The last state of each credential that was ever in the status.
    known: HashMap<String, Credential>,
    dead: HashSet<String>,
    /// The hashes whose token was in a Secret of this PAT.
    held: HashSet<String>,
    violations: Vec<String>,
    moments: usize,
    lines: Vec<String>,
    now: Option<Time>,
    /// The longest time between a decision and its write.
    late: SignedDuration,
}

impl Replay {
    fn takes(&mut self, object: Object, name: String, now: Time) {
        self.now = Some(now);
        match object {
            Object::Secret(secret) => {
                self.lines.push(format!("{now} Secret {name}: {}", describe(&secret)));
                self.secrets.insert(name, *secret);
                self.note_held();
            }
            Object::NoSecret => {
                self.lines.push(format!("{now} Secret {name}: gone"));
                self.secrets.remove(&name);
            }
            Object::Pat(pat) => {
                let status = pat.status.clone().unwrap_or_default();
                let credentials: Vec<_> = status.credentials.iter().map(brief).collect();
                let ready = status.conditions.iter().find(|condition| condition.type_ == "Ready");
                let ready = ready.map_or("-", |ready| &ready.reason);
                self.lines.push(format!("{now} PAT {name}: {ready} [{}]", credentials.join(" ")));
                let before = self.pat.replace(*pat);
                self.status_changed(before, now);
            }
            Object::NoPat => {
                self.lines.push(format!("{now} PAT {name}: gone"));
                *self = Self {
                    violations: std::mem::take(&mut self.violations),
                    lines: std::mem::take(&mut self.lines),
                    secrets: std::mem::take(&mut self.secrets),
                    moments: self.moments,
                    now: self.now,
                    late: self.late,
                    ..Self::default()
                };
            }
        }
        self.look(now);
    }

    fn uid(&self) -> Option<&str> {
        self.pat.as_ref()?.metadata.uid.as_deref()
    }

    /// The tokens in the Secrets that this PAT controls: Secret, key and hash.
    fn tokens(&self) -> Vec<(String, String, String)> {
        let Some(uid) = self.uid() else { return Vec::new() };
        let ours = self.secrets.iter().filter(|(_, secret)| {
            secret.owner_references().iter().any(|owner| owner.uid == uid && owner.controller == Some(true))
        });
        ours.flat_map(|(name, secret)| values(secret).into_iter().map(move |(key, value)| (name, key, value)))
            .filter_map(|(name, key, value)| {
                Some((name.clone(), key, Presented::parse(&value).ok()?.hash().to_string()))
            })
            .collect()
    }

    fn note_held(&mut self) {
        let hashes: Vec<_> = self.tokens().into_iter().map(|(_, _, hash)| hash).collect();
        self.held.extend(hashes);
    }

    fn terms(&self) -> Option<Terms> {
        let pat = self.pat.as_ref()?;
        let status = pat.status.clone().unwrap_or_default();
        Some(
            Terms::read(&pat.spec, &status, pat.metadata.deletion_timestamp.is_some())
                .expect("a spec that the API server accepted"),
        )
    }

    fn violated(&mut self, now: Time, what: String) {
        self.violations.push(format!("{now}: {what}"));
    }

    /// Checks invariant 1 at one moment: a token in a Secret of this PAT is valid, unless it was revoked or has expired.
    fn look(&mut self, now: Time) {
        self.now = Some(now);
        let (Some(pat), Some(terms)) = (&self.pat, self.terms()) else { return };
        self.moments += 1;
        let credentials = pat.status.as_ref().map(|status| status.credentials.clone()).unwrap_or_default();
        let main_key = key(&pat.spec);
        let mut found = Vec::new();
        for (secret, key, hash) in self.tokens() {
            let listed = credentials.iter().find(|credential| credential.sha256.to_string() == hash);
            let Some(credential) = listed.or_else(|| self.known.get(&hash)) else {
                found.push(format!("invariant 1: {secret}/{key} holds a token that was never published"));
                continue;
            };
            let verdict = terms.judge(credential, now);
            let excused = match verdict {
                Verdict::Valid => listed.is_some(),
                Verdict::CredentialExpired => key != main_key && credential.state == CredentialState::Grace,
                _ => true,
            };
            if !excused {
                let place = if listed.is_some() { "" } else { ", no longer in the status" };
                found.push(format!("invariant 1: {secret}/{key} holds {}, {verdict:?}{place}", brief(credential)));
            }
        }
        found.into_iter().for_each(|what| self.violated(now, what));
    }

    /// Checks invariants 2 and 3 for a change of the status.
    fn status_changed(&mut self, before: Option<PersonalAccessToken>, now: Time) {
        let (Some(pat), Some(terms)) = (self.pat.clone(), self.terms()) else { return };
        let old = before.and_then(|pat| pat.status).unwrap_or_default();
        let new = pat.status.clone().unwrap_or_default();
        let mut found = Vec::new();
        if new.credentials.len() > 8 {
            found.push(format!("{} credentials are live", new.credentials.len()));
        }
        for was in &old.credentials {
            let is = new.credentials.iter().find(|credential| credential.id == was.id);
            match is {
                None => {
                    self.dead.insert(was.sha256.to_string());
                    let in_place = self.tokens().iter().any(|(_, _, hash)| *hash == was.sha256.to_string());
                    let superseded = was.state == CredentialState::Pending && !in_place;
                    // A token of a one-time delivery ends if no consumer reads it.
                    let missed = was.state != CredentialState::Grace
                        && old.delivery != Some(DeliveryState::Delivered)
                        && new.delivery == Some(DeliveryState::NotDelivered);
                    if terms.judge(was, now).is_valid() && !superseded && !missed {
                        found.push(format!("invariant 2: {} was removed while it was valid", brief(was)));
                    }
                }
                Some(is) => found.extend(self.moved(&pat, was, is, &new.credentials, &terms, now)),
            }
        }
        for is in &new.credentials {
            if !old.credentials.iter().any(|was| was.id == is.id) {
                if self.dead.contains(&is.sha256.to_string()) {
                    found.push(format!("invariant 3: {} came back after it was removed", brief(is)));
                }
                if is.state != CredentialState::Pending && old.revision.is_some() {
                    found.push(format!("{} was in use before it was published", brief(is)));
                }
            }
            self.known.insert(is.sha256.to_string(), is.clone());
        }
        self.note_held();
        found.into_iter().for_each(|what| self.violated(now, what));
    }

    fn moved(
        &self,
        pat: &PersonalAccessToken,
        was: &Credential,
        is: &Credential,
        all: &[Credential],
        terms: &Terms,
        now: Time,
    ) -> Option<String> {
        use CredentialState::{Active, Grace, Pending};
        let far = Time::from_micros(i64::MAX / 2);
        let end = |credential: &Credential| credential.expires_at.unwrap_or(far);
        let token_end = terms.end().unwrap_or(far);
        match (was.state, is.state) {
            (Active, Grace) => {
                let successor =
                    all.iter().any(|other| other.state == Active && self.held.contains(&other.sha256.to_string()));
                if !successor {
                    return Some(format!("invariant 2: {} was retired before a new one was in the Secret", brief(was)));
                }
                let promised = now.minus(self.late).plus(grace(pat)).min(end(was)).min(token_end);
                (end(is) < promised).then(|| format!("invariant 2: {} got less than its grace period", brief(is)))
            }
            (Grace, Grace) if end(is) < end(was).min(token_end) => {
                Some(format!("invariant 2: the grace period of {} was shortened", brief(is)))
            }
            (Pending, Active) if !self.held.contains(&is.sha256.to_string()) => {
                Some(format!("{} became active but was never in a Secret", brief(is)))
            }
            (Active | Grace, Pending) | (Grace, Active) | (Pending, Grace) => {
                Some(format!("{} was {} before", brief(is), was.state.as_str()))
            }
            _ => None,
        }
    }

    fn story(self, name: &str) -> Story {
        let (mut leftovers, mut orphans) = (Vec::new(), 0);
        let status = self.pat.as_ref().and_then(|pat| pat.status.clone()).unwrap_or_default();
        for credential in &status.credentials {
            if credential.state == CredentialState::Pending {
                orphans += 1;
            } else if !self.held.contains(&credential.sha256.to_string()) {
                leftovers.push(format!("invariant 3: the token of {} was never in a Secret", brief(credential)));
            }
        }
        let (tokens, now) = (self.tokens(), self.now.unwrap_or(Time::from_micros(0)));
        if let Some(terms) = self.terms() {
            for (secret, key, hash) in &tokens {
                let listed = status.credentials.iter().find(|credential| credential.sha256.to_string() == *hash);
                if !listed.is_some_and(|credential| terms.judge(credential, now).is_valid()) {
                    leftovers.push(format!("{secret}/{key} holds a token that is not valid"));
                }
            }
        }
        let places: BTreeSet<_> = tokens.iter().map(|(secret, _, _)| secret).collect();
        if places.len() > 1 {
            leftovers.push(format!("{name} has tokens in several Secrets: {places:?}"));
        }
        Story { violations: self.violations, leftovers, orphans, moments: self.moments, lines: self.lines }
    }
}

fn key(spec: &PersonalAccessTokenSpec) -> String {
    spec.secret.as_ref().and_then(|secret| secret.key.clone()).unwrap_or_else(|| "token".into())
}

fn grace(pat: &PersonalAccessToken) -> SignedDuration {
    let status = pat.status.clone().unwrap_or_default();
    Intent::read(&StoredPat::from(pat.clone()), &pat.spec, &status).expect("a spec that the API server accepted").grace
}

fn brief(credential: &Credential) -> String {
    let end = credential.expires_at.map_or_else(String::new, |end| format!("<{end}"));
    format!("{}:{}:r{}{end}", &credential.id.as_str()[..4], credential.state.as_str(), credential.revision)
}

fn describe(secret: &Secret) -> String {
    let value = |(key, value): (String, String)| match Presented::parse(&value) {
        Ok(token) => format!("{key}={}", &token.id().to_string()[..4]),
        Err(_) => format!("{key}={} bytes", value.len()),
    };
    values(secret).into_iter().map(value).collect::<Vec<_>>().join(" ")
}

/// Collects texts that must not contain a token, such as logs and events. Finds the tokens in them afterwards.
pub mod canary {
    use super::{Arc, BTreeSet, HashMap, HashSet, LazyLock, Mutex, PoisonError, Presented, io};
    use base64::{
        Engine, alphabet,
        engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig},
        prelude::BASE64_STANDARD,
    };
    use tracing_subscriber::{EnvFilter, fmt::MakeWriter, layer::SubscriberExt, util::SubscriberInitExt};

    /// The length of a token's id.
    const ID: usize = 12;
    /// The length of a token's secret part. Shorter words cannot contain one.
    const SECRET: usize = 43;
    /// The length of the checksum at the end.
    const CHECK: usize = 6;
    /// The least length of a token in any encoding.
    const SHORTEST: usize = ID + SECRET + CHECK;

    /// A base64 decoder that accepts truncated text.
    const BASE64_LENIENT: GeneralPurpose = GeneralPurpose::new(
        &alphabet::STANDARD,
        GeneralPurposeConfig::new()
            .with_decode_padding_mode(DecodePaddingMode::Indifferent)
            .with_decode_allow_trailing_bits(true),
    );

    /// The collected long words, each with its first origin. Shorter ones cannot contain a token.
    static COLLECTED: LazyLock<Mutex<HashMap<Box<str>, &'static str>>> = LazyLock::new(Mutex::default);
    static LOG_BYTES: std::sync::atomic::AtomicUsize = std::sync::atomic::AtomicUsize::new(0);

    /// Collects a text that must not contain a token.
    pub fn collect(origin: &'static str, text: &str) {
        let is_part = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '+' | '/' | '-' | '=');
        let words = text.split(|c| !is_part(c)).filter(|word| word.len() >= SECRET);
        let mut collected = COLLECTED.lock().unwrap_or_else(PoisonError::into_inner);
        for word in words {
            if !collected.contains_key(word) {
                collected.insert(word.into(), origin);
            }
        }
    }

    /// Collects the log of this process from now on, at all levels. May be called several times.
    pub fn listen_to_logs() {
        let writer = tracing_subscriber::fmt::layer().with_ansi(false).with_writer(LogWriter);
        let filter = EnvFilter::new("trace,hyper=debug,hyper_util=debug,rustls=debug");
        let _by_another_test = tracing_subscriber::registry().with(filter).with(writer).try_init();
    }

    /// The number of collected log bytes.
    pub fn logged_bytes() -> usize {
        LOG_BYTES.load(std::sync::atomic::Ordering::Relaxed)
    }

    /// Asserts that none of these tokens was collected, nor its secret part, in plain text, hex or base64 at any alignment.
    pub fn assert_no_token_leaked(tokens: &BTreeSet<String>) {
        let leaks = leaks(tokens);
        assert!(leaks.is_empty(), "tokens leaked: {leaks:?}");
    }

    /// The ids of the tokens that were collected, and their origins.
    pub fn leaks(tokens: &BTreeSet<String>) -> BTreeSet<(String, &'static str)> {
        let mut forms: HashMap<Vec<u8>, &str> = HashMap::new();
        for token in tokens {
            for form in forms_of(token) {
                forms.insert(form, token);
            }
        }
        let lengths: HashSet<usize> = forms.keys().map(Vec::len).collect();
        let mut leaks = BTreeSet::new();
        for (word, origin) in COLLECTED.lock().unwrap_or_else(PoisonError::into_inner).iter() {
            for length in &lengths {
                for window in word.as_bytes().windows(*length) {
                    if let Some(token) = forms.get(window) {
                        leaks.insert((token[..token.len() - SECRET - CHECK].to_owned(), *origin));
                    }
                }
            }
        }
        leaks
    }

    /// The prefixes and ids of all tokens in a text, in plain text, hex or base64. The checksum identifies a token.
    pub fn tokens_in(text: &str) -> BTreeSet<String> {
        let mut found = plain_tokens_in(text);
        let is_part = |c: char| c.is_ascii_alphanumeric() || matches!(c, '+' | '/' | '-' | '_');
        for word in text.split(|c| !is_part(c)).filter(|word| word.len() > SHORTEST) {
            let hex = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok();
            for shift in 0..4 {
                let word = &word[shift..];
                // A single base64 digit at the end encodes no byte.
                let digits = if word.len() % 4 == 1 { &word[..word.len() - 1] } else { word };
                let bytes = BASE64_LENIENT.decode(digits.replace('-', "+").replace('_', "/")).ok();
                let pairs: Option<Vec<_>> = word.as_bytes().chunks_exact(2).map(hex).collect();
                for bytes in [bytes, pairs].into_iter().flatten() {
                    found.extend(plain_tokens_in(&String::from_utf8_lossy(&bytes)));
                }
            }
        }
        found
    }

    fn plain_tokens_in(text: &str) -> BTreeSet<String> {
        let mut found = BTreeSet::new();
        for (middle, _) in text.match_indices('_') {
            let (before, after) = (&text.as_bytes()[..middle], &text.as_bytes()[middle + 1..]);
            let tail = after.iter().take_while(|byte| byte.is_ascii_alphanumeric()).count();
            if tail < ID + SECRET + CHECK {
                continue;
            }
            let head = before.iter().rev().take_while(|byte| byte.is_ascii_alphanumeric()).count();
            // Other characters may directly precede a token, such as the n of an escaped newline.
            for start in middle - head..middle {
                if Presented::parse(&text[start..=middle + ID + SECRET + CHECK]).is_ok() {
                    found.insert(text[start..=middle + ID].to_owned());
                }
            }
        }
        found
    }

    /// The encodings of a token's secret part.
    fn forms_of(token: &str) -> Vec<Vec<u8>> {
        let secret = &token[token.len() - SECRET - CHECK..token.len() - CHECK];
        let mut forms =
            vec![secret.into(), secret.bytes().flat_map(|byte| format!("{byte:02x}").into_bytes()).collect()];
        for shift in 0..3 {
            let text = BASE64_STANDARD.encode([&b"xxx"[..shift], secret.as_bytes()].concat());
            // Leave out the digits that depend on neighbouring bytes.
            let (from, to) = ((shift * 8).div_ceil(6), (shift + SECRET) * 8 / 6);
            forms.push(text.as_bytes()[from..to].into());
        }
        forms
    }

    #[derive(Clone, Copy)]
    struct LogWriter;

    struct Line(Arc<Mutex<Vec<u8>>>);

    impl<'w> MakeWriter<'w> for LogWriter {
        type Writer = Line;

        fn make_writer(&'w self) -> Line {
            Line(Arc::default())
        }
    }

    impl io::Write for Line {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap_or_else(PoisonError::into_inner).extend(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl Drop for Line {
        fn drop(&mut self) {
            let bytes = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            LOG_BYTES.fetch_add(bytes.len(), std::sync::atomic::Ordering::Relaxed);
            collect("the log", &String::from_utf8_lossy(&bytes));
        }
    }
}
