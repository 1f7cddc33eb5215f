//! The functions of templates: kgateway's, and those of its first engine that make sense here.

use base64::Engine as _;
use base64::alphabet::{STANDARD, URL_SAFE};
use base64::engine::DecodePaddingMode;
use base64::engine::general_purpose::{GeneralPurpose, GeneralPurposeConfig, STANDARD_NO_PAD};
use minijinja::value::Value;
use minijinja::{Environment, Error, ErrorKind, State};

use crate::context::Message;
use crate::variables;

/// The names of all functions, those that the library has among them.
pub(crate) const NAMES: [&str; 22] = [
    "base64_decode",
    "base64_encode",
    "base64url_decode",
    "base64url_encode",
    "body",
    "context",
    "debug",
    "dict",
    "dynamic_metadata",
    "env",
    "get_cookie",
    "get_cookie_i",
    "header",
    "namespace",
    "range",
    "raw_string",
    "replace_with_random",
    "replace_with_string",
    "request_header",
    "substring",
    "trim",
    "word_count",
];

/// Functions of kgateway's first engine that are not here, and why.
pub(crate) const REFUSED: [(&str, &str); 4] = [
    (
        "cluster_metadata",
        "the request has no backend yet when it is transformed",
    ),
    ("data_source", "there are no data sources"),
    (
        "extraction",
        "there are no extractors: use header(), body(), substring() or the variables of a JSON body",
    ),
    (
        "host_metadata",
        "the request has no endpoint yet when it is transformed",
    ),
];

/// Padding is written, and does not have to be there when it is read: tokens have none.
const LENIENT: GeneralPurposeConfig =
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent);
const BASE64: GeneralPurpose = GeneralPurpose::new(&STANDARD, LENIENT);
const BASE64_URL: GeneralPurpose = GeneralPurpose::new(&URL_SAFE, LENIENT);

pub(crate) fn add_to(environment: &mut Environment<'_>) {
    environment.add_function("base64_decode", |text: &str| decode(&BASE64, text));
    environment.add_function("base64_encode", |bytes: &[u8]| BASE64.encode(bytes));
    environment.add_function("base64url_decode", |text: &str| decode(&BASE64_URL, text));
    environment.add_function("base64url_encode", |bytes: &[u8]| BASE64_URL.encode(bytes));
    environment.add_function("body", body);
    environment.add_function("context", context);
    environment.add_function("dynamic_metadata", dynamic_metadata);
    environment.add_function("env", |name: &str| {
        variables::allowed().get(name).cloned().unwrap_or_default()
    });
    environment.add_function("get_cookie", |state: &State<'_, '_>, name: &str| {
        cookie(state, |found| found == name)
    });
    environment.add_function("get_cookie_i", |state: &State<'_, '_>, name: &str| {
        cookie(state, |found| found.eq_ignore_ascii_case(name))
    });
    environment.add_function("header", header);
    environment.add_function("raw_string", raw_string);
    environment.add_function("replace_with_random", replace_with_random);
    environment.add_function("replace_with_string", replace);
    environment.add_function("request_header", request_header);
    environment.add_function("substring", substring);
    environment.add_function("trim", |text: &str| text.trim().to_owned());
    environment.add_function("word_count", |text: &str| text.split_whitespace().count());
}

fn header(state: &State<'_, '_>, name: &str) -> String {
    let name = name.to_ascii_lowercase();
    let value = Message::see(state, |message| message.facts.header(&name));
    value.flatten().unwrap_or_default()
}

fn request_header(state: &State<'_, '_>, name: &str) -> String {
    let name = name.to_ascii_lowercase();
    let value = Message::see(state, |message| message.facts.request_header(&name));
    value.flatten().unwrap_or_default()
}

/// The value of the request's first cookie whose name is the one (RFC 6265 §4.2.1).
fn cookie(state: &State<'_, '_>, is_it: impl Fn(&str) -> bool) -> String {
    let cookies = request_header(state, "cookie");
    // Several fields of this name come with ", " between them, where "; " belongs.
    let mut pairs = cookies
        .split([';', ','])
        .filter_map(|pair| pair.split_once('='));
    let found = pairs.find(|(name, _)| is_it(name.trim()));
    found
        .map(|(_, value)| value.trim().to_owned())
        .unwrap_or_default()
}

fn body(state: &State<'_, '_>) -> Value {
    let text = Message::see(state, |message| Value::from(message.text().as_ref()));
    text.unwrap_or_else(|| Value::from(""))
}

fn context(state: &State<'_, '_>) -> Value {
    Message::see(state, |message| message.json.clone()).unwrap_or_default()
}

/// What is noted at a path, as access logs have it: `namespace:key:inner key`.
fn dynamic_metadata(state: &State<'_, '_>, path: &str) -> Value {
    let mut keys = path.split(':');
    let namespace = keys.next().unwrap_or_default();
    let noted = Message::see(state, |message| message.facts.metadata(namespace));
    let noted = keys.try_fold(noted.flatten().unwrap_or_default(), |at, key| match at {
        serde_json::Value::Object(mut members) => members.remove(key),
        _ => None,
    });
    match noted {
        None | Some(serde_json::Value::Null) => Value::UNDEFINED,
        Some(value) => serde_json::from_value(value).unwrap_or_default(),
    }
}

/// Bytes of the text from `start` on. A length that reaches beyond the end, or none, is to the end. What
/// would cut a character apart begins and ends before it.
fn substring(text: &str, start: usize, length: Option<usize>) -> String {
    let end = length
        .and_then(|length| start.checked_add(length))
        .map_or(text.len(), |end| end.min(text.len()));
    let boundary = |mut at: usize| {
        while !text.is_char_boundary(at) {
            at -= 1;
        }
        at
    };
    text[boundary(start.min(end))..boundary(end)].to_owned()
}

/// The text as it is between the quotes of JSON.
fn raw_string(text: &str) -> Result<String, Error> {
    let quoted =
        serde_json::to_string(text).map_err(|_| Error::from(ErrorKind::BadSerialization))?;
    Ok(quoted[1..quoted.len() - 1].to_owned())
}

fn decode(base64: &GeneralPurpose, text: &str) -> String {
    let bytes = base64.decode(text).unwrap_or_default();
    String::from_utf8(bytes).unwrap_or_default()
}

/// Puts another random text in place of a pattern at each call: never the one of another request.
fn replace_with_random(state: &State<'_, '_>, text: &str, pattern: &str) -> Result<String, Error> {
    let mut random = [0; 16];
    getrandom::fill(&mut random)
        .map_err(|_| Error::new(ErrorKind::InvalidOperation, "there are no random numbers"))?;
    let random = STANDARD_NO_PAD.encode(random);
    replace(state, text, pattern, &random)
}

fn replace(state: &State<'_, '_>, text: &str, pattern: &str, with: &str) -> Result<String, Error> {
    // What it makes is counted when it is there, which may be too late: an empty pattern is everywhere.
    let places = text.matches(pattern).count();
    state.consume_fuel((places.saturating_mul(with.len()) / 64) as u64)?;
    Ok(text.replace(pattern, with))
}
