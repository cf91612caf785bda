//! Tokens, their checks, and the administrator.

use super::super::option::{Opt, number, text};
use super::options;

const COOKIES: &str =
    "new apps check users in their own query and mutate endpoints; this setting goes on working.";

options! {
    ADMIN_PASSWORD = text("admin-password").secret().doc(
        "Password for /statz and for the inspector (any user name). Without it, and unless \
         NODE_ENV=development, both answer 403. After ten wrong ones an address is answered 429, and may try once \
         more every six seconds.");
    AUTH_REVALIDATE_INTERVAL_SECONDS = number("auth.revalidate-interval-seconds").default("300").doc(
        "How often each connection is checked with the query endpoint; 401 or 403 disconnects it. 0 or less \
         turns it off.");
    AUTH_RETRANSFORM_INTERVAL_SECONDS = number("auth.retransform-interval-seconds").default("300").doc(
        "How often the queries of a client group are transformed anew, so that changed permissions take \
         effect. 0 or less turns it off.");
    AUTH_SECRET = text("auth.secret").secret().deprecated(COOKIES).doc(
        "Symmetric key that JSON web tokens are signed with. At most one of secret, jwk and jwks-url. Who gives no \
         token is who he says he is, as with zero-cache; but a client group whose user has shown a token is joined \
         with one only.");
    AUTH_JWK = text("auth.jwk").secret().deprecated(COOKIES).doc(
        "Public key (a JWK, as JSON) that JSON web tokens are verified with.");
    AUTH_JWKS_URL = text("auth.jwks-url").deprecated(COOKIES).doc(
        "URL of a set of such keys (a JWK set). It is fetched when the first token comes, again after 10 minutes, \
         and when a token names a key that is not in it, at most every 30 seconds. When it cannot be fetched, the \
         keys from before are used on. Redirects are not followed.");
    AUTH_ISSUER = text("auth.issuer").deprecated(COOKIES).doc("The iss claim that tokens must have.");
    AUTH_AUDIENCE = text("auth.audience").deprecated(COOKIES).doc("The aud claim that tokens must have.");
}
