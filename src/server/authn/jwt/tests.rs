use std::time::UNIX_EPOCH;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair};
use serde_json::json;

use super::*;
use crate::config::JwksSource;

const ISSUER: &str = "https://issuer.example";

/// A key that signs, and its public part.
enum Key {
    Ec(EcdsaKeyPair),
    Ed(Ed25519KeyPair),
}

impl Key {
    fn ec() -> Self {
        let (algorithm, random) = (&ECDSA_P256_SHA256_FIXED_SIGNING, SystemRandom::new());
        let pkcs8 = EcdsaKeyPair::generate_pkcs8(algorithm, &random).unwrap();
        Self::Ec(EcdsaKeyPair::from_pkcs8(algorithm, pkcs8.as_ref(), &random).unwrap())
    }

    fn ed() -> Self {
        let pkcs8 = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).unwrap();
        Self::Ed(Ed25519KeyPair::from_pkcs8(pkcs8.as_ref()).unwrap())
    }

    fn jwk(&self, id: &str) -> Value {
        match self {
            Self::Ec(pair) => {
                let point = pair.public_key().as_ref();
                let [x, y] = [&point[1..33], &point[33..]].map(|part| URL_SAFE_NO_PAD.encode(part));
                json!({"kty": "EC", "crv": "P-256", "kid": id, "x": x, "y": y, "use": "sig"})
            }
            Self::Ed(pair) => {
                let x = URL_SAFE_NO_PAD.encode(pair.public_key().as_ref());
                json!({"kty": "OKP", "crv": "Ed25519", "kid": id, "x": x})
            }
        }
    }

    fn sign(&self, header: &Value, claims: &Value) -> String {
        let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let message = format!("{}.{}", part(header), part(claims));
        let signature = match self {
            Self::Ec(pair) => {
                let signature = pair.sign(&SystemRandom::new(), message.as_bytes());
                URL_SAFE_NO_PAD.encode(signature.unwrap().as_ref())
            }
            Self::Ed(pair) => URL_SAFE_NO_PAD.encode(pair.sign(message.as_bytes()).as_ref()),
        };
        format!("{message}.{signature}")
    }
}

fn now() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap()
        .as_secs()
}

fn jwt(keys: &[Value], algorithms: &[&str]) -> Jwt {
    Jwt::new(JwtOptions {
        issuer: ISSUER.to_owned(),
        audiences: vec!["drawbridge".to_owned(), "gateway".to_owned()],
        algorithms: algorithms.iter().map(|name| (*name).to_owned()).collect(),
        leeway: Duration::from_secs(60),
        identity_claim: "sub".to_owned(),
        keys: JwksSource::File(json!({"keys": keys}).to_string().into_bytes()),
    })
    .unwrap()
}

/// Returns the valid claims with these changes; null removes one.
fn claims(changes: Value) -> Value {
    let mut claims = json!({
        "iss": ISSUER, "aud": "drawbridge", "sub": "shop", "exp": now() + 600, "nbf": now() - 10,
    });
    for (name, value) in changes.as_object().unwrap() {
        let all = claims.as_object_mut().unwrap();
        match value {
            Value::Null => all.remove(name),
            value => all.insert(name.clone(), value.clone()),
        };
    }
    claims
}

fn text(checked: Checked) -> String {
    match checked {
        Checked::Identity(identity) => identity.to_string(),
        Checked::OfOthers => "of others".to_owned(),
        Checked::Invalid(problem) => problem,
        Checked::UnknownKey => "unknown key".to_owned(),
    }
}

#[test]
fn claims_are_checked() {
    let key = Key::ec();
    let jwt = jwt(&[key.jwk("k1")], &["ES256"]);
    let header = json!({"alg": "ES256", "kid": "k1"});
    for (changes, want) in [
        (json!({}), "jwt:shop"),
        (json!({"aud": ["other", "gateway"]}), "jwt:shop"),
        (json!({"nbf": null}), "jwt:shop"),
        (json!({"exp": now() - 30}), "jwt:shop"),
        (json!({"nbf": now() + 30}), "jwt:shop"),
        (json!({"exp": now() - 120}), "has expired"),
        (json!({"nbf": now() + 120}), "is not valid yet"),
        (json!({"exp": null}), "has no valid claim `exp`"),
        (json!({"exp": "never"}), "has no valid claim `exp`"),
        (json!({"exp": -1}), "has no valid claim `exp`"),
        (json!({"nbf": "never"}), "has an invalid claim `nbf`"),
        (json!({"aud": null}), "has no valid claim `aud`"),
        (json!({"aud": "other"}), "is for another audience"),
        (json!({"aud": []}), "is for another audience"),
        (json!({"sub": null}), "has no text as its claim `sub`"),
        (json!({"sub": 7}), "has no text as its claim `sub`"),
        (json!({"sub": ""}), "has a claim `sub` that is empty"),
        (
            json!({"sub": "a\nb"}),
            "has a claim `sub` that has control characters",
        ),
        (json!({"iss": "https://other.example"}), "of others"),
        (
            json!({"iss": [ISSUER, "https://other.example"]}),
            "of others",
        ),
        (json!({"iss": null}), "of others"),
    ] {
        let token = key.sign(&header, &claims(changes.clone()));
        assert_eq!(text(jwt.check(token.as_bytes())), want, "{changes}");
        // A remembered result is the same.
        assert_eq!(text(jwt.check(token.as_bytes())), want, "{changes}");
    }
}

#[test]
fn signature_must_be_of_the_key_and_the_algorithm() {
    let (ec, other, ed) = (Key::ec(), Key::ec(), Key::ed());
    let mut for_es384 = other.jwk("es384");
    for_es384["alg"] = json!("ES384");
    let mut for_encryption = other.jwk("enc");
    for_encryption["use"] = json!("enc");
    let secret = json!({"kty": "oct", "kid": "secret", "k": URL_SAFE_NO_PAD.encode("0123456789")});
    let unknown = json!({"kty": "new", "kid": "new"});
    let keys = [
        ec.jwk("ec"),
        ed.jwk("ed"),
        for_es384,
        for_encryption,
        secret,
        unknown,
    ];
    let jwt = jwt(&keys, &["ES256", "EdDSA"]);
    let claims = claims(json!({}));
    for (key, header, want) in [
        (&ec, json!({"alg": "ES256", "kid": "ec"}), "jwt:shop"),
        (&ed, json!({"alg": "EdDSA", "kid": "ed"}), "jwt:shop"),
        // The only key of its kind.
        (&ec, json!({"alg": "ES256"}), "jwt:shop"),
        (
            &other,
            json!({"alg": "ES256", "kid": "ec"}),
            "has a signature that is not of its key",
        ),
        (&ed, json!({"alg": "EdDSA", "kid": "ec"}), "unknown key"),
        (&ec, json!({"alg": "ES256", "kid": "ed"}), "unknown key"),
        (&ec, json!({"alg": "ES256", "kid": "EC"}), "unknown key"),
        (
            &other,
            json!({"alg": "ES256", "kid": "es384"}),
            "unknown key",
        ),
        (&other, json!({"alg": "ES256", "kid": "enc"}), "unknown key"),
        (
            &ec,
            json!({"alg": "ES384", "kid": "ec"}),
            "has the algorithm ES384, which is not allowed",
        ),
        (
            &ec,
            json!({"alg": "HS256", "kid": "secret"}),
            "has the algorithm HS256, which is not allowed",
        ),
        (&ec, json!({"alg": "none", "kid": "ec"}), "cannot be read"),
        (&ec, json!({"kid": "ec"}), "cannot be read"),
        (
            &ec,
            json!({"alg": "ES256", "kid": "ec", "crit": ["exp"]}),
            "cannot be read",
        ),
        (
            &ec,
            json!({"alg": "ES256", "kid": "ec", "b64": false}),
            "cannot be read",
        ),
        // The key in a header is the sender's.
        (
            &other,
            json!({"alg": "ES256", "kid": "x", "jwk": other.jwk("x")}),
            "unknown key",
        ),
    ] {
        let token = key.sign(&header, &claims);
        assert_eq!(text(jwt.check(token.as_bytes())), want, "{header}");
    }
    let token = ec.sign(&json!({"alg": "ES256", "kid": "ec"}), &claims);
    let (message, _) = token.rsplit_once('.').unwrap();
    for (token, want) in [
        (
            format!("{message}."),
            "has a signature that is not of its key",
        ),
        (format!("{token}AA"), "cannot be read"),
        (message.to_owned(), "of others"),
        (format!("{token}.x"), "of others"),
        ("a.b.c".to_owned(), "of others"),
        (String::new(), "of others"),
    ] {
        let got = text(jwt.check(token.as_bytes()));
        assert!(
            got == want || want == "cannot be read" && got.contains("signature"),
            "{got}"
        );
    }
}

#[test]
fn several_keys_without_an_id_are_ambiguous() {
    let (one, two) = (Key::ec(), Key::ec());
    let jwt = jwt(&[one.jwk("1"), two.jwk("2")], &["ES256"]);
    let token = one.sign(&json!({"alg": "ES256"}), &claims(json!({})));
    let want = "does not say which key has signed it (kid)";
    assert_eq!(text(jwt.check(token.as_bytes())), want);
}

/// Source: RFC 7515, "Example JWS Using RSASSA-PKCS1-v1_5 SHA-256".
#[test]
fn signature_of_rsa_is_verified() {
    let key = json!({"kty": "RSA", "e": "AQAB", "n": "ofgWCuLjybRlzo0tZWJjNiuSfb4p4fAkd_wWJcyQoTbji9k0l8W26mPddxHmfHQp-Vaw-4qPCJrcS2mJPMEzP1Pt0Bm4d4QlL-yRT-SFd2lZS-pCgNMsD1W_YpRPEwOWvG6b32690r2jZ47soMZo9wGzjb_7OMg0LOL-bSf63kpaSHSXndS5z5rexMdbBYUsLA9e-KXBdQOS-UTo7WTBEMa2R2CapHg665xsmtdVMTBQY4uDZlxvb3qCo5ZwKh9kG4LT6_I5IhlJH7aGhyxXFvUK-DWNmoudF8NAco9_h9iaGNj8q2ethFkMLs91kzk2PAcDTW9gb54h4FRWyuXpoQ"});
    let token = "eyJhbGciOiJSUzI1NiJ9.eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ.cC4hiUPoj9Eetdgtv3hF80EGrhuB__dzERat0XF9g2VtQgr9PJbu3XOiZj5RZmh7AAuHIm4Bh-0Qc_lF5YKt_O8W2Fp5jujGbds9uJdbF9CUAr7t1dnZcAcQjbKBYNX4BAynRFdiuB--f_nZLgrnbyTyWzO75vRK5h6xBArLIARNPvkSjtQBMHlb1L07Qe7K0GarZRmB_eSN9383LcOLn6_dO--xi12jzDwusC-eOkHWEsqtFZESc6BfI7noOPqvhJ1phCnvWh6IeYI2w9QOYEUipUTI8np6LbgGY9Fs98rqVt5AXLIhWkWywlVmtVrBp0igcN_IoypGlUPQGe77Rw";
    let mut jwt = jwt(&[key], &["RS256"]);
    jwt.options.issuer = "joe".to_owned();
    jwt.validation.set_issuer(&["joe"]);
    // Its signature is valid, and it has no audience.
    assert_eq!(
        text(jwt.check(token.as_bytes())),
        "has no valid claim `aud`"
    );
    let changed = token.replace(".cC4hiUPoj9", ".cC4hiUPoj8");
    let want = "has a signature that is not of its key";
    assert_eq!(text(jwt.check(changed.as_bytes())), want);
}

#[test]
fn sets_without_a_usable_key_are_rejected() {
    let secret = json!({"kty": "oct", "kid": "secret", "k": "c2VjcmV0"});
    for (set, want) in [
        ("", "is not JSON"),
        ("[]", "no list"),
        ("{\"keys\": []}", "no public key"),
        (&*json!({"keys": [secret]}).to_string(), "no public key"),
    ] {
        let keys = IssuerKeys::new(&JwksSource::File(set.as_bytes().to_vec()));
        let problem = keys.err().unwrap_or_default();
        assert!(problem.contains(want), "{set}: {problem}");
    }
}
