//! Why a token is refused.

/// Why a token is refused, in Envoy's words: they are the answer's body.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Status {
    /// There is none.
    #[error("Jwt is missing")]
    Missing,
    /// Its time has not come (`nbf`).
    #[error("Jwt not yet valid")]
    NotYetValid,
    /// Its time is over (`exp`).
    #[error("Jwt is expired")]
    Expired,
    /// It has not three parts.
    #[error("Jwt is not in the form of Header.Payload.Signature with two dots and 3 sections")]
    Form,
    /// The first part is not Base64url.
    #[error("Jwt header is an invalid Base64url encoded")]
    HeaderEncoding,
    /// The first part is not an object.
    #[error("Jwt header is an invalid JSON")]
    HeaderJson,
    /// It does not say how it was signed.
    #[error("Jwt header [alg] field is required and must be a string")]
    NoAlgorithm,
    /// It was signed in a way that is not supported, or not at all.
    #[error("Jwt header [alg] is not supported")]
    Algorithm,
    /// The name of the key is no text.
    #[error("Jwt header [kid] field is not a string")]
    KeyId,
    /// The second part is not Base64url.
    #[error("Jwt payload is an invalid Base64url encoded")]
    PayloadEncoding,
    /// The second part is not an object.
    #[error("Jwt payload is an invalid JSON")]
    PayloadJson,
    /// A claim is no text.
    #[error("Jwt payload [iss] field is not a string")]
    Issuer,
    /// A claim is no text.
    #[error("Jwt payload [sub] field is not a string")]
    Subject,
    /// A claim is no number.
    #[error("Jwt payload [iat] field is not an integer")]
    IssuedAt,
    /// A claim is out of range.
    #[error("Jwt payload [iat] field is not a positive 64 bit integer")]
    IssuedAtRange,
    /// A claim is no number.
    #[error("Jwt payload [nbf] field is not an integer")]
    NotBefore,
    /// A claim is out of range.
    #[error("Jwt payload [nbf] field is not a positive 64 bit integer")]
    NotBeforeRange,
    /// A claim is no number.
    #[error("Jwt payload [exp] field is not an integer")]
    Expiration,
    /// A claim is out of range.
    #[error("Jwt payload [exp] field is not a positive 64 bit integer")]
    ExpirationRange,
    /// A claim is no text.
    #[error("Jwt payload [jti] field is not a string")]
    Id,
    /// A claim is neither a text nor a list of texts.
    #[error("Jwt payload [aud] field is not a string or string list")]
    Audience,
    /// The third part is not Base64url.
    #[error("Jwt signature is an invalid Base64url encoded")]
    SignatureEncoding,
    /// It is of an issuer that nobody asked for.
    #[error("Jwt issuer is not configured")]
    UnknownIssuer,
    /// It is for somebody else.
    #[error("Audiences in Jwt are not allowed")]
    AudienceNotAllowed,
    /// No key that fits has made the signature.
    #[error("Jwt verification fails")]
    Verification,
    /// An Ed25519 signature has 64 bytes.
    #[error("Jwt ED25519 signature is wrong length")]
    SignatureLength,
    /// No key has the name or the algorithm.
    #[error("Jwks doesn't have key to match kid or alg from Jwt")]
    NoKey,
    /// The keys could not be had.
    #[error("Jwks remote fetch is failed")]
    Fetch,
}

impl Status {
    /// The status of the answer: 403 for who is known and comes to the wrong place, else 401.
    pub fn code(self) -> u16 {
        match self {
            Self::AudienceNotAllowed => 403,
            _ => 401,
        }
    }
}
