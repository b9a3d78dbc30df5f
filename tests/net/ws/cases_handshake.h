/*
 * Handshakes. Lines are separated by '|'.
 */

#define KEY     "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="
#define VERSION "Sec-WebSocket-Version: 13"
#define UPGRADE "Upgrade: websocket|Connection: Upgrade"
#define GOOD    UPGRADE "|" KEY "|" VERSION

struct request_case {
    const char *name;
    const char *lines;
    int status;        /* 0: good. */
    const char *start; /* NULL: GET of HTTP/1.1, with a Host. */
};

/* clang-format off */
static const struct request_case request_cases[] = {
    {"as it should be", GOOD, 0},
    {"in any order", VERSION "|" KEY "|Connection: Upgrade|Upgrade: websocket", 0},
    {"names without case", "UPGRADE: websocket|connection: Upgrade|SEC-WEBSOCKET-KEY: dGhlIHNhbXBsZSBub25jZQ==|sec-websocket-version: 13", 0},
    {"tokens without case", "Upgrade: WebSocket|Connection: upgrade|" KEY "|" VERSION, 0},
    {"Connection is a list", "Upgrade: websocket|Connection: keep-alive, Upgrade|" KEY "|" VERSION, 0},
    {"Connection twice", "Upgrade: websocket|Connection: keep-alive|Connection: Upgrade|" KEY "|" VERSION, 0},
    {"Upgrade is a list", "Upgrade: h2c, websocket|Connection: Upgrade|" KEY "|" VERSION, 0},
    {"space around values", "Upgrade:  websocket |Connection:\tUpgrade|Sec-WebSocket-Key:   dGhlIHNhbXBsZSBub25jZQ==  |Sec-WebSocket-Version: 13 ", 0},
    {"with an origin", GOOD "|Origin: https://example.org", 0},
    {"with other headers", GOOD "|User-Agent: x|Cookie: a=b|Pragma: no-cache", 0},
    {"with a length of 0", GOOD "|Content-Length: 0", 0},
    {"with a query", GOOD, 0, "GET /a?b=c HTTP/1.1\r\nHost: x\r\n"},
    {"absolute form", GOOD, 0, "GET http://example.org/chat HTTP/1.1\r\nHost: example.org\r\n"},

    {"a plain request", "User-Agent: curl", 426},
    {"no Upgrade", "Connection: Upgrade|" KEY "|" VERSION, 426},
    {"Upgrade to something else", "Upgrade: h2c|Connection: Upgrade|" KEY "|" VERSION, 426},
    {"Upgrade to something longer", "Upgrade: websockets|Connection: Upgrade|" KEY "|" VERSION, 426},
    {"HTTP/1.0", GOOD, 426, "GET /chat HTTP/1.0\r\nHost: example.org\r\n"},
    {"no Connection", "Upgrade: websocket|" KEY "|" VERSION, 400},
    {"Connection without Upgrade", "Upgrade: websocket|Connection: keep-alive|" KEY "|" VERSION, 400},
    {"Connection with something longer", "Upgrade: websocket|Connection: Upgraded|" KEY "|" VERSION, 400},
    {"POST", GOOD, 405, "POST /chat HTTP/1.1\r\nHost: example.org\r\n"},
    {"HEAD", GOOD, 405, "HEAD /chat HTTP/1.1\r\nHost: example.org\r\n"},
    {"no Host", GOOD, 400, "GET /chat HTTP/1.1\r\n"},
    {"a body", GOOD "|Content-Length: 5", 400},
    {"a chunked body", GOOD "|Transfer-Encoding: chunked", 400},

    {"version: none", UPGRADE "|" KEY, 400},
    {"version: 8", UPGRADE "|" KEY "|Sec-WebSocket-Version: 8", 426},
    {"version: 7", UPGRADE "|" KEY "|Sec-WebSocket-Version: 7", 426},
    {"version: 14", UPGRADE "|" KEY "|Sec-WebSocket-Version: 14", 426},
    {"version: 0", UPGRADE "|" KEY "|Sec-WebSocket-Version: 0", 426},
    {"version: 013", UPGRADE "|" KEY "|Sec-WebSocket-Version: 013", 426},
    {"version: a list", UPGRADE "|" KEY "|Sec-WebSocket-Version: 13, 8", 426},
    {"version: a word", UPGRADE "|" KEY "|Sec-WebSocket-Version: thirteen", 426},
    {"version: empty", UPGRADE "|" KEY "|Sec-WebSocket-Version:", 426},
    {"version: twice", GOOD "|" VERSION, 400},
    {"version: two", GOOD "|Sec-WebSocket-Version: 8", 400},

    {"key: none", UPGRADE "|" VERSION, 400},
    {"key: empty", UPGRADE "|" VERSION "|Sec-WebSocket-Key:", 400},
    {"key: of 15 bytes", UPGRADE "|" VERSION "|Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25j", 400},
    {"key: of 17 bytes", UPGRADE "|" VERSION "|Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZWE=", 400},
    {"key: of 18 bytes", UPGRADE "|" VERSION "|Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZWFh", 400},
    {"key: no padding", UPGRADE "|" VERSION "|Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ", 400},
    {"key: half the padding", UPGRADE "|" VERSION "|Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=", 400},
    {"key: padding inside", UPGRADE "|" VERSION "|Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25=ZQ==", 400},
    {"key: no base64", UPGRADE "|" VERSION "|Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25-ZQ==", 400},
    {"key: base64 for URLs", UPGRADE "|" VERSION "|Sec-WebSocket-Key: dGhlIHNhbXBsZSBub2_jZQ==", 400},
    {"key: a space inside", UPGRADE "|" VERSION "|Sec-WebSocket-Key: dGhlIHNhbXBs SBub25jZQ==", 400},
    {"key: text after it", UPGRADE "|" VERSION "|Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==, x", 400},
    {"key: twice", GOOD "|" KEY, 400},
    {"key: two", GOOD "|Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==", 400},
    {"an Accept in a request", GOOD "|Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=", 400},
    {"two origins", GOOD "|Origin: a|Origin: b", 400},

    {"protocol: one", GOOD "|Sec-WebSocket-Protocol: chat", 0},
    {"protocol: two", GOOD "|Sec-WebSocket-Protocol: chat, superchat", 0},
    {"protocol: two headers", GOOD "|Sec-WebSocket-Protocol: chat|Sec-WebSocket-Protocol: superchat", 0},
    {"protocol: an empty element", GOOD "|Sec-WebSocket-Protocol: chat,,superchat,", 0},
    {"protocol: different by case", GOOD "|Sec-WebSocket-Protocol: chat, Chat", 0},
    {"protocol: empty", GOOD "|Sec-WebSocket-Protocol:", 400},
    {"protocol: commas", GOOD "|Sec-WebSocket-Protocol: , ,", 400},
    {"protocol: twice", GOOD "|Sec-WebSocket-Protocol: chat, chat", 400},
    {"protocol: twice in two headers", GOOD "|Sec-WebSocket-Protocol: a, chat|Sec-WebSocket-Protocol: b, chat", 400},
    {"protocol: a space", GOOD "|Sec-WebSocket-Protocol: super chat", 400},
    {"protocol: quoted", GOOD "|Sec-WebSocket-Protocol: \"chat\"", 400},
    {"protocol: a separator", GOOD "|Sec-WebSocket-Protocol: chat/2", 400},
    {"protocol: not ASCII", GOOD "|Sec-WebSocket-Protocol: ch\xc3\xa4t", 400},

    {"extension: unknown", GOOD "|Sec-WebSocket-Extensions: x-foo", 0},
    {"extension: unknown, with parameters", GOOD "|Sec-WebSocket-Extensions: foo; a; b=1; c=\"d\", bar", 0},
    {"extension: more parameters than are kept", GOOD "|Sec-WebSocket-Extensions: foo; a; b; c; d; e; f; g", 0},
    {"extension: deflate", GOOD "|Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits", 0},
    {"extension: two headers", GOOD "|Sec-WebSocket-Extensions: foo|Sec-WebSocket-Extensions: bar", 0},
    {"extension: space", GOOD "|Sec-WebSocket-Extensions: foo ;  a = b ;c , bar", 0},
    {"extension: empty elements", GOOD "|Sec-WebSocket-Extensions: ,foo,,bar,", 0},
    {"extension: escaped", GOOD "|Sec-WebSocket-Extensions: foo; a=\"\\1\\5\"", 0},
    {"extension: a long value", GOOD "|Sec-WebSocket-Extensions: foo; a=aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", 0},
    {"extension: empty", GOOD "|Sec-WebSocket-Extensions:", 400},
    {"extension: commas", GOOD "|Sec-WebSocket-Extensions: ,,", 400},
    {"extension: the second header empty", GOOD "|Sec-WebSocket-Extensions: foo|Sec-WebSocket-Extensions:", 400},
    {"extension: no name", GOOD "|Sec-WebSocket-Extensions: ; a", 400},
    {"extension: no parameter", GOOD "|Sec-WebSocket-Extensions: foo;", 400},
    {"extension: no parameter between", GOOD "|Sec-WebSocket-Extensions: foo;; a", 400},
    {"extension: no value", GOOD "|Sec-WebSocket-Extensions: foo; a=", 400},
    {"extension: no parameter's name", GOOD "|Sec-WebSocket-Extensions: foo; =a", 400},
    {"extension: two names", GOOD "|Sec-WebSocket-Extensions: foo bar", 400},
    {"extension: an open quote", GOOD "|Sec-WebSocket-Extensions: foo; a=\"b", 400},
    {"extension: an open escape", GOOD "|Sec-WebSocket-Extensions: foo; a=\"b\\", 400},
    {"extension: an empty quote", GOOD "|Sec-WebSocket-Extensions: foo; a=\"\"", 400},
    {"extension: a quote with a space", GOOD "|Sec-WebSocket-Extensions: foo; a=\"b c\"", 400},
    {"extension: text after a quote", GOOD "|Sec-WebSocket-Extensions: foo; a=\"b\"c", 400},
    {"extension: a quoted name", GOOD "|Sec-WebSocket-Extensions: \"foo\"", 400},
    {"extension: a value of its own", GOOD "|Sec-WebSocket-Extensions: foo=bar", 400},
    {"extension: a separator", GOOD "|Sec-WebSocket-Extensions: foo/bar", 400},
};

/* ---- Offers of permessage-deflate, and what a server answers ---- */

struct offer_case {
    const char *offer;
    const char *answer; /* "": declined. */
    unsigned server_bits, client_bits;
    struct bop_ws_deflate_options options; /* But enabled. */
    bool disabled;
};

#define PMD  "permessage-deflate"
#define SNC  "; server_no_context_takeover"
#define CNC  "; client_no_context_takeover"
#define SMWB "; server_max_window_bits"
#define CMWB "; client_max_window_bits"
#define TAKE .server_takeover = true, .client_takeover = true

static const struct offer_case offer_cases[] = {
    {PMD, PMD SNC CNC, 15, 15},
    {PMD, PMD, 15, 15, {TAKE}},
    {PMD, "", 0, 0, {TAKE}, .disabled = true},
    {"PerMessage-Deflate", PMD, 15, 15, {TAKE}},
    {PMD SNC, PMD SNC, 15, 15, {TAKE}},
    {PMD CNC, PMD CNC, 15, 15, {TAKE}},
    {PMD CNC SNC, PMD SNC CNC, 15, 15, {TAKE}},
    {PMD, PMD SNC, 15, 15, {.client_takeover = true}},
    {PMD, PMD CNC, 15, 15, {.server_takeover = true}},

    {PMD SMWB "=15", PMD SMWB "=15", 15, 15, {TAKE}},
    {PMD SMWB "=10", PMD SMWB "=10", 10, 15, {TAKE}},
    {PMD SMWB "=9", PMD SMWB "=9", 9, 15, {TAKE}},
    {PMD SMWB "=8", PMD SMWB "=8", 8, 15, {TAKE}},
    {PMD SMWB "=\"12\"", PMD SMWB "=12", 12, 15, {TAKE}},
    {PMD SMWB "=\"1\\2\"", PMD SMWB "=12", 12, 15, {TAKE}},
    {PMD SMWB "=12", PMD SMWB "=10", 10, 15, {.server_bits = 10, TAKE}},
    {PMD SMWB "=10", PMD SMWB "=10", 10, 15, {.server_bits = 12, TAKE}},
    {PMD, PMD SMWB "=10", 10, 15, {.server_bits = 10, TAKE}},
    {PMD, PMD SMWB "=8", 8, 15, {.server_bits = 1, TAKE}},
    {PMD, PMD, 15, 15, {.server_bits = 16, TAKE}},

    {PMD CMWB, PMD, 15, 15, {TAKE}},
    {PMD CMWB "=15", PMD, 15, 15, {TAKE}},
    {PMD CMWB "=10", PMD CMWB "=10", 15, 10, {TAKE}},
    {PMD CMWB "=8", PMD CMWB "=8", 15, 8, {TAKE}},
    {PMD CMWB, PMD CMWB "=12", 15, 12, {.client_bits = 12, TAKE}},
    {PMD CMWB "=15", PMD CMWB "=12", 15, 12, {.client_bits = 12, TAKE}},
    {PMD CMWB "=10", PMD CMWB "=10", 15, 10, {.client_bits = 12, TAKE}},
    {PMD, PMD, 15, 15, {.client_bits = 12, TAKE}},
    {PMD CMWB SMWB "=11" SNC CNC, PMD SNC CNC SMWB "=11" CMWB "=9", 11, 9, {.client_bits = 9, TAKE}},

    /* Declined: not as the document has it. */
    {PMD SMWB, "", 0, 0, {TAKE}},
    {PMD SMWB "=7", "", 0, 0, {TAKE}},
    {PMD SMWB "=16", "", 0, 0, {TAKE}},
    {PMD SMWB "=0", "", 0, 0, {TAKE}},
    {PMD SMWB "=08", "", 0, 0, {TAKE}},
    {PMD SMWB "=010", "", 0, 0, {TAKE}},
    {PMD SMWB "=+10", "", 0, 0, {TAKE}},
    {PMD SMWB "=-10", "", 0, 0, {TAKE}},
    {PMD SMWB "=1e1", "", 0, 0, {TAKE}},
    {PMD SMWB "=10.0", "", 0, 0, {TAKE}},
    {PMD SMWB "=100", "", 0, 0, {TAKE}},
    {PMD SMWB "=1000000000000000000000000010", "", 0, 0, {TAKE}},
    {PMD SMWB "=x", "", 0, 0, {TAKE}},
    {PMD CMWB "=7", "", 0, 0, {TAKE}},
    {PMD CMWB "=16", "", 0, 0, {TAKE}},
    {PMD CMWB "=x", "", 0, 0, {TAKE}},
    {PMD SNC "=1", "", 0, 0, {TAKE}},
    {PMD SNC "=true", "", 0, 0, {TAKE}},
    {PMD CNC "=\"x\"", "", 0, 0, {TAKE}},
    {PMD SNC SNC, "", 0, 0, {TAKE}},
    {PMD CNC CNC, "", 0, 0, {TAKE}},
    {PMD SMWB "=10" SMWB "=10", "", 0, 0, {TAKE}},
    {PMD SMWB "=10" SMWB "=11", "", 0, 0, {TAKE}},
    {PMD CMWB CMWB, "", 0, 0, {TAKE}},
    {PMD CMWB CMWB "=10", "", 0, 0, {TAKE}},
    {PMD "; unknown", "", 0, 0, {TAKE}},
    {PMD "; unknown=10", "", 0, 0, {TAKE}},
    {PMD CMWB "; server_max_window_bit=10", "", 0, 0, {TAKE}},
    {PMD SNC CNC SMWB "=10" CMWB "; unknown", "", 0, 0, {TAKE}},
    {PMD SNC CNC SMWB "=10" CMWB "=10" SNC, "", 0, 0, {TAKE}},
    {"permessage-bzip2", "", 0, 0, {TAKE}},
    {"x-webkit-deflate-frame", "", 0, 0, {TAKE}},
    {"permessage-deflates", "", 0, 0, {TAKE}},
    {"deflate-frame; permessage-deflate", "", 0, 0, {TAKE}},

    /* Several: the first good one. */
    {PMD SMWB "=10, " PMD, PMD SMWB "=10", 10, 15, {TAKE}},
    {PMD SMWB "=7, " PMD, PMD, 15, 15, {TAKE}},
    {PMD "; unknown, " PMD SNC, PMD SNC, 15, 15, {TAKE}},
    {"foo, bar; a=b, " PMD CMWB, PMD, 15, 15, {TAKE}},
    {"foo\r\nSec-WebSocket-Extensions: " PMD, PMD, 15, 15, {TAKE}},
    {PMD "; unknown\r\nSec-WebSocket-Extensions: " PMD SMWB "=9", PMD SMWB "=9", 9, 15, {TAKE}},
    {PMD SMWB "=x," PMD SNC SNC ", " PMD CMWB "=1", "", 0, 0, {TAKE}},
};

/* ---- Responses, and whether a client takes them ---- */

struct response_case {
    const char *name;
    const char *lines;
    bool good;
    const char *protocol;
    unsigned server_bits, client_bits; /* 0: no deflate. */
    struct bop_ws_deflate_options options;
    const char *start; /* NULL: 101 */
};

#define ACCEPT   "Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
#define ANSWER   UPGRADE "|" ACCEPT
#define DEFLATED ANSWER "|Sec-WebSocket-Extensions: "
#define ON       .enabled = true

static const struct response_case response_cases[] = {
    {"as it should be", ANSWER, true},
    {"without case", "upgrade: WebSocket|CONNECTION: upgrade|sec-websocket-accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=", true},
    {"Connection is a list", "Upgrade: websocket|Connection: foo, Upgrade|" ACCEPT, true},
    {"space around Accept", UPGRADE "|Sec-WebSocket-Accept:   s3pPLMBiTxaQ9kYGzzhZRbK+xOo=  ", true},
    {"other headers", ANSWER "|Server: x|Date: y|Sec-WebSocket-Version: 13", true},
    {"200", ANSWER "|Content-Length: 0", false, .start = "HTTP/1.1 200 OK\r\n"},
    {"404", "Content-Length: 0", false, .start = "HTTP/1.1 404 Not Found\r\n"},
    {"302", "Location: /|Content-Length: 0", false, .start = "HTTP/1.1 302 Found\r\n"},
    {"100", ANSWER, false, .start = "HTTP/1.1 100 Continue\r\n"},
    {"102", ANSWER, false, .start = "HTTP/1.1 102 Processing\r\n"},
    {"HTTP/1.0", ANSWER, false, .start = "HTTP/1.0 101 Switching Protocols\r\n"},
    {"no Upgrade", "Connection: Upgrade|" ACCEPT, false},
    {"another Upgrade", "Upgrade: h2c|Connection: Upgrade|" ACCEPT, false},
    {"two in Upgrade", "Upgrade: websocket, h2c|Connection: Upgrade|" ACCEPT, false},
    {"Upgrade twice", "Upgrade: websocket|" ANSWER, false},
    {"no Connection", "Upgrade: websocket|" ACCEPT, false},
    {"another Connection", "Upgrade: websocket|Connection: keep-alive|" ACCEPT, false},
    {"no Accept", UPGRADE, false},
    {"an empty Accept", UPGRADE "|Sec-WebSocket-Accept:", false},
    {"another Accept", UPGRADE "|Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOO=", false},
    {"Accept of another case", UPGRADE "|Sec-WebSocket-Accept: S3pPLMBiTxaQ9kYGzzhZRbK+xOo=", false},
    {"the key as Accept", UPGRADE "|Sec-WebSocket-Accept: dGhlIHNhbXBsZSBub25jZQ==", false},
    {"a longer Accept", UPGRADE "|Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=x", false},
    {"Accept twice", ANSWER "|" ACCEPT, false},

    {"protocol: the first", ANSWER "|Sec-WebSocket-Protocol: chat", true, "chat"},
    {"protocol: the second", ANSWER "|Sec-WebSocket-Protocol: mqtt", true, "mqtt"},
    {"protocol: another", ANSWER "|Sec-WebSocket-Protocol: soap", false},
    {"protocol: of another case", ANSWER "|Sec-WebSocket-Protocol: Chat", false},
    {"protocol: two", ANSWER "|Sec-WebSocket-Protocol: chat, mqtt", false},
    {"protocol: two headers", ANSWER "|Sec-WebSocket-Protocol: chat|Sec-WebSocket-Protocol: mqtt", false},
    {"protocol: twice", ANSWER "|Sec-WebSocket-Protocol: chat|Sec-WebSocket-Protocol: chat", false},
    {"protocol: empty", ANSWER "|Sec-WebSocket-Protocol:", false},

    {"extension: none offered", DEFLATED PMD, false},
    {"extension: another", DEFLATED "x-foo", false, .options = {ON, TAKE}},
    {"extension: another beside", DEFLATED PMD ", x-foo", false, .options = {ON, TAKE}},
    {"extension: declined", ANSWER, true, .options = {ON, TAKE}},
    {"extension: empty", DEFLATED, false, .options = {ON, TAKE}},
    {"extension: malformed", DEFLATED PMD ";", false, .options = {ON, TAKE}},
    {"extension: malformed after it", DEFLATED PMD ", x foo", false, .options = {ON, TAKE}},
    {"deflate", DEFLATED PMD, true, NULL, 15, 15, {ON, TAKE}},
    {"deflate: twice", DEFLATED PMD ", " PMD, false, .options = {ON, TAKE}},
    {"deflate: in two headers", DEFLATED PMD "|Sec-WebSocket-Extensions: " PMD, false, .options = {ON, TAKE}},
    {"deflate: neither takes over", DEFLATED PMD SNC CNC, true, NULL, 15, 15, {ON}},
    {"deflate: the server takes over unasked", DEFLATED PMD, false, .options = {ON}},
    {"deflate: the server need not", DEFLATED PMD SNC, true, NULL, 15, 15, {ON, TAKE}},
    {"deflate: the client is told not to", DEFLATED PMD CNC, true, NULL, 15, 15, {ON, TAKE}},
    {"deflate: server bits", DEFLATED PMD SMWB "=10", true, NULL, 10, 15, {ON, TAKE}},
    {"deflate: server bits as asked", DEFLATED PMD SMWB "=10", true, NULL, 10, 15, {ON, TAKE, .server_bits = 10}},
    {"deflate: server bits below", DEFLATED PMD SMWB "=9", true, NULL, 9, 15, {ON, TAKE, .server_bits = 10}},
    {"deflate: server bits above", DEFLATED PMD SMWB "=11", false, .options = {ON, TAKE, .server_bits = 10}},
    {"deflate: server bits not given", DEFLATED PMD, false, .options = {ON, TAKE, .server_bits = 10}},
    {"deflate: client bits", DEFLATED PMD CMWB "=10", true, NULL, 15, 10, {ON, TAKE}},
    {"deflate: client bits 8", DEFLATED PMD CMWB "=8", true, NULL, 15, 8, {ON, TAKE}},
    {"deflate: client bits below", DEFLATED PMD CMWB "=9", true, NULL, 15, 9, {ON, TAKE, .client_bits = 10}},
    {"deflate: client bits above", DEFLATED PMD CMWB "=11", false, .options = {ON, TAKE, .client_bits = 10}},
    {"deflate: client bits not given", DEFLATED PMD, true, NULL, 15, 10, {ON, TAKE, .client_bits = 10}},
    {"deflate: client bits without a value", DEFLATED PMD CMWB, false, .options = {ON, TAKE}},
    {"deflate: server bits without a value", DEFLATED PMD SMWB, false, .options = {ON, TAKE}},
    {"deflate: server bits 7", DEFLATED PMD SMWB "=7", false, .options = {ON, TAKE}},
    {"deflate: server bits 16", DEFLATED PMD SMWB "=16", false, .options = {ON, TAKE}},
    {"deflate: client bits 08", DEFLATED PMD CMWB "=08", false, .options = {ON, TAKE}},
    {"deflate: a parameter twice", DEFLATED PMD SNC SNC, false, .options = {ON, TAKE}},
    {"deflate: a value where none is", DEFLATED PMD CNC "=1", false, .options = {ON, TAKE}},
    {"deflate: an unknown parameter", DEFLATED PMD "; foo", false, .options = {ON, TAKE}},
    {"deflate: a quoted value", DEFLATED PMD SMWB "=\"12\"", true, NULL, 12, 15, {ON, TAKE}},
};
/* clang-format on */
