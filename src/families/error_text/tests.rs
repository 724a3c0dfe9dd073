use super::*;
use crate::families::common::fault_message;
use crate::families::error_body::{json, tests::reply};
use crate::families::error_shapes;

#[test]
fn text_is_read_in_its_charset() {
    for (content_type, body, want) in [
        ("text/plain; charset=iso-8859-1", &b"\xe9t\xe9"[..], "été"),
        ("text/html; charset=\"Windows-1252\"", b"5 \x80", "5 €"),
        ("text/plain", b"\xfcber", "über"),
        ("text/plain; charset=utf-8", b"a\xff", "a\u{fffd}"),
        ("application/json", b"a\xff", "a\u{fffd}"),
        // What it says is not always true.
        ("text/plain; charset=latin1", "ü".as_bytes(), "ü"),
        (
            "text/plain; charset=shift_jis",
            b"a\x82\xa0",
            "a\u{fffd}\u{fffd}",
        ),
        ("", b"plain", "plain"),
    ] {
        let reply = reply(500, &[("content-type", content_type)], body);
        assert_eq!(text(&reply, 100), want, "{content_type}");
    }
    let latin1 = &[(
        "content-type",
        "application/problem+json; charset=ISO-8859-1",
    )];
    let reply = reply(400, latin1, &b"{\"detail\":\"gr\xfc\xdfe\"}"[..]);
    assert_eq!(fault_message(&reply, None), "grüße");
}

#[test]
fn binary_bodies_are_described_and_not_shown() {
    let png = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR";
    for (content_type, body, want) in [
        (
            "image/png",
            &png[..],
            "the response has 16 bytes of image/png, which are not shown",
        ),
        (
            "application/octet-stream",
            b"boom",
            "the response has 4 bytes of application/octet-stream, which are not shown",
        ),
        ("", png, "the response has 16 bytes, which are not shown"),
        (
            "text/plain",
            b"\0\x01\x02\x03",
            "the response has 4 bytes of text/plain, which are not shown",
        ),
        ("text/plain", b"\x1b[31mred\x1b[0m", "\x1b[31mred\x1b[0m"),
        ("text/plain", b"boom", "boom"),
        (
            "application/json",
            b"\xff\xfe oops",
            "\u{fffd}\u{fffd} oops",
        ),
        (
            "application/problem+json",
            b"\xff\xfe oops",
            "\u{fffd}\u{fffd} oops",
        ),
        (
            "",
            b"\xff\xfe oops",
            "the response has 7 bytes, which are not shown",
        ),
        (
            "application/json",
            b"\xff\xfe\x01\x80 oo",
            "the response has 7 bytes of application/json, which are not shown",
        ),
        ("image/png", b"", ""),
    ] {
        let reply = reply(500, &[("content-type", content_type)], body);
        assert_eq!(fault_message(&reply, None), want, "{content_type}");
    }
}

#[test]
fn xml_errors_have_message_reason_and_request_id() {
    for (body, message, reason, request_id) in [
        // S3.
        (
            "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<Error><Code>NoSuchKey</Code>\
             <Message>The specified key does not exist.</Message><Resource>/b/k</Resource>\
             <RequestId>4442587FB7D0A2F9</RequestId></Error>",
            "The specified key does not exist.",
            "NoSuchKey",
            "4442587FB7D0A2F9",
        ),
        // EC2 and the other query APIs of AWS.
        (
            "<?xml version=\"1.0\"?><Response><Errors><Error><Code>InvalidInstanceID.Malformed</Code>\
             <Message>Invalid id: \"i-1\"</Message></Error></Errors><RequestID>ea966190</RequestID></Response>",
            "Invalid id: \"i-1\"",
            "InvalidInstanceID.Malformed",
            "ea966190",
        ),
        (
            "<ErrorResponse xmlns=\"http://a/\"><Error><Type>Sender</Type><Code>Throttling</Code>\
             <Message>Rate exceeded</Message></Error><RequestId>r-1</RequestId></ErrorResponse>",
            "Rate exceeded",
            "Throttling",
            "r-1",
        ),
        // OpenStack's old faults, with an attribute.
        (
            "<itemNotFound code=\"404\" xmlns=\"http://docs.openstack.org/\"><message>No &quot;x&quot;\
             </message></itemNotFound>",
            "No \"x\"",
            "404",
            "",
        ),
        // SOAP 1.1 and 1.2.
        (
            "<?xml version='1.0'?><s:Envelope xmlns:s='x'><s:Header/><s:Body><s:Fault>\
             <faultcode>s:Client</faultcode><faultstring>bad input</faultstring></s:Fault></s:Body></s:Envelope>",
            "bad input",
            "",
            "",
        ),
        (
            "<?xml version='1.0'?><e:Envelope><e:Body><e:Fault><e:Code><e:Value>e:Sender</e:Value></e:Code>\
             <e:Reason><e:Text xml:lang='en'>bad <![CDATA[& worse]]></e:Text></e:Reason></e:Fault></e:Body></e:Envelope>",
            "bad & worse",
            "",
            "",
        ),
        // vCloud, and RFC 9457 in XML.
        (
            "<?xml version='1.0'?><Error message=\"no access\" majorErrorCode=\"403\" errorCode='DENIED'/>",
            "no access",
            "DENIED",
            "",
        ),
        (
            "<?xml version='1.0'?><!-- c > d --><problem xmlns='urn:ietf:rfc:7807'><title>Out</title>\
             <detail>no credit</detail></problem>",
            "no credit",
            "",
            "",
        ),
        // Cut in the middle.
        (
            "<Error><Code>C</Code><Message>half of i",
            "half of i",
            "C",
            "",
        ),
    ] {
        let reply = reply(400, &[("content-type", "application/xml")], body);
        let error = error_shapes::read(&json(&reply).expect(body));
        assert_eq!(error.message.as_deref(), Some(message), "{body}");
        assert_eq!(
            error.reason.as_deref().unwrap_or_default(),
            reason,
            "{body}"
        );
        assert_eq!(
            error.request_id.as_deref().unwrap_or_default(),
            request_id,
            "{body}"
        );
    }
    for body in [
        "<?xml version='1.0'?><html><body><h1>502</h1></body></html>",
        "<!DOCTYPE html><html><message>x</message></html>",
        "<?xml version='1.0'?><a><b>no error</b></a>",
        "<a",
        "<error",
        "<error><![CDATA[",
        "<error><!--",
    ] {
        assert_eq!(xml(&reply(500, &[], body)), None, "{body}");
    }
    // Its depth is limited.
    let deep = "<error>".repeat(10_000);
    assert_eq!(xml(&reply(500, &[], deep)), None);
}
