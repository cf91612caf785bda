//! Why a token is refused. The texts are fixed: nothing of a token gets into a log or an answer.

use crate::protocol::error::{Kind, ProtocolError};

/// Why a token is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TokenError {
    /// It is not a JSON web token.
    Malformed,
    /// It is longer than [`super::signed::MAX_TOKEN`].
    TooLong,
    /// Its header asks for an extension.
    Extension,
    /// It is not signed, or with an algorithm that is not known here.
    Algorithm,
    /// The key does not admit its algorithm.
    OtherAlgorithm,
    /// No key of the set is the one that it was signed with.
    NoKey,
    /// Several keys of the set may be the one that it was signed with.
    Ambiguous,
    /// The set of keys could not be fetched, and there is no older one.
    NoKeys,
    /// The signature is wrong.
    Signature,
    /// Its time is over.
    Expired,
    /// Its time has not begun.
    TooEarly,
    /// Somebody else has issued it.
    Issuer,
    /// It is for somebody else.
    Audience,
    /// It is another user's.
    Subject,
    /// A claim that has to be a number is none; its name.
    NoNumber(&'static str),
}

impl std::fmt::Display for TokenError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            TokenError::Malformed => "it is not a JSON web token",
            TokenError::TooLong => "it is too long",
            TokenError::Extension => "its header asks for an extension that is not supported",
            TokenError::Algorithm => "it is signed with no algorithm that is supported",
            TokenError::OtherAlgorithm => "the key is not for the algorithm that it is signed with",
            TokenError::NoKey => "no key of ZERO_AUTH_JWKS_URL is the one that it is signed with",
            TokenError::Ambiguous => "several keys of ZERO_AUTH_JWKS_URL match; it has to name one (kid)",
            TokenError::NoKeys => "the keys of ZERO_AUTH_JWKS_URL could not be fetched",
            TokenError::Signature => "its signature is wrong",
            TokenError::Expired => "it has expired",
            TokenError::TooEarly => "it is not valid yet",
            TokenError::Issuer => "its issuer (iss) is not ZERO_AUTH_ISSUER",
            TokenError::Audience => "its audience (aud) is not ZERO_AUTH_AUDIENCE",
            TokenError::Subject => "its subject (sub) is not the connection's userID",
            TokenError::NoNumber(claim) => return write!(f, "its claim {claim} is not a number"),
        })
    }
}

impl std::error::Error for TokenError {}

impl From<TokenError> for ProtocolError {
    fn from(error: TokenError) -> ProtocolError {
        ProtocolError::new(Kind::AuthInvalidated, format!("the token is not valid: {error}"))
    }
}
