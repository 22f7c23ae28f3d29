/* What two ends of the verbs transport send each other: frames, and the handshake.
 *
 *   client                                   server
 *   connection request: magic, version, mac --> refuses at once, or accepts
 *   HELLO: nonce, channel, capacities -------->
 *        <--------------------------- CHALLENGE: nonce
 *   PROOF: the connection as it sees it, mac ->
 *        <--------------------------- WELCOME (after it: grants, texts, notes), or REFUSE
 *
 * The first mac is of the addresses and ports of both ends: who does not know the token
 * does not get as far as a queue pair, however often it asks. It could be played back from
 * the same address and port, and then the second one is asked for.
 *
 * That is BLAKE2b, keyed with the hash of the token, over HELLO, CHALLENGE and the
 * connection. Both nonces are in it, so that no proof can be played back; and both queue
 * pairs, GIDs, addresses and ports, so that none can be passed on over another connection.
 * The client proves first: a stranger who asks gets nothing to try tokens with.
 *
 * From the same is made a key for each direction of the connection. Every frame from
 * WELCOME on has a tag, SipHash-2-4 of 128 bits with that key over the number of the frame
 * and its bytes; that of WELCOME is the server's proof. Keys and addresses of memory are
 * sent only behind it. Without a token the hash is all zero, and proofs and tags show
 * only that both sides had none. Numbers are little-endian.
 */
#ifndef GAPLESS_VERBS_WIRE_H
#define GAPLESS_VERBS_WIRE_H

#include <stddef.h>
#include <stdint.h>

#define VERBS_MAGIC 0x47535256u
#define VERBS_PROTOCOL 3u
#define VERBS_NONCE 32u
#define VERBS_MAC 32u
#define VERBS_TAG 16u
#define VERBS_ASK 16u
#define VERBS_FRAME_BYTES 256u
#define VERBS_FRAME_HEAD (8u + VERBS_TAG)
#define VERBS_FRAME_DATA (VERBS_FRAME_BYTES - VERBS_FRAME_HEAD)
/* Frames that may be unread: a control message of TP_TEXT_MAX needs 18, and up to half
 * of the credit may be out. */
#define VERBS_FRAMES 48u

enum verbs_frame_kind {
    VERBS_HELLO = 1,
    VERBS_CHALLENGE,
    VERBS_PROOF,
    VERBS_WELCOME,
    VERBS_REFUSE,
    VERBS_TEXT,
    VERBS_GRANT,
    VERBS_CREDIT,
    VERBS_NOTICE, /* a note where there is no immediate */
    VERBS_BYE     /* the end that follows is in order */
};

/* Private data of a connection request, and of a refusal. */
struct verbs_request {
    uint32_t magic;
    uint16_t protocol;
    uint16_t status; /* of a refusal: minus the status; AGAIN: come again */
    uint32_t number;
    uint8_t mac[VERBS_ASK]; /* of a request where there is a token */
};

struct verbs_hello {
    uint32_t magic;
    uint16_t protocol;
    uint16_t spare;
    uint8_t nonce[VERBS_NONCE];
    uint64_t session; /* 0: the first channel */
    uint32_t channel, channels;
    uint32_t notes_max, windows_max; /* of the client */
};

struct verbs_challenge {
    uint8_t nonce[VERBS_NONCE];
    uint32_t has_token;
    uint32_t spare;
};

/* What a connection is known by, at both ends: of the client, of the server. Over iWARP
 * queue pairs and GIDs are 0; there it is the addresses and ports of TCP. */
struct verbs_link {
    uint8_t address[2][16]; /* of IPv6; of IPv4 mapped into it */
    uint8_t gid[2][16];
    uint32_t pair[2];
    uint16_t port[2];
};

struct verbs_proof {
    struct verbs_link link;
    uint8_t mac[VERBS_MAC];
};

struct verbs_welcome {
    uint64_t session;
    uint32_t notes_max, windows_max;
};

struct verbs_refuse {
    int32_t status;
    char text[VERBS_FRAME_DATA - 4];
};

/* A region is where its parts are, one after the other: bytes before the split are
 * reached by the key for reading, those from it on by the key for writing. */
struct verbs_offer_part {
    uint64_t bytes, address;
    uint32_t read_key, write_key;
};

/* Most parts of a region, and of one frame. */
#define VERBS_PARTS 64u
#define VERBS_OFFER_PARTS 8u

struct verbs_offer { /* GRANT: `count` of `parts` parts, from number `first` on */
    uint32_t window;
    uint8_t access, parts, first, count;
    uint64_t bytes, split;
    struct verbs_offer_part part[VERBS_OFFER_PARTS];
};
#define VERBS_OFFER_HEAD 24u
#define VERBS_OFFER_BYTES(count)                                                       \
    (VERBS_OFFER_HEAD + (count) * (uint32_t)sizeof(struct verbs_offer_part))

struct verbs_credit {
    uint32_t notes, frames;
};

struct verbs_note {
    uint32_t note, sequence;
};

struct verbs_frame {
    uint8_t kind;
    uint8_t last; /* VERBS_TEXT: of its message */
    uint16_t bytes;
    uint32_t spare;
    uint8_t tag[VERBS_TAG];
    union {
        char data[VERBS_FRAME_DATA];
        struct verbs_hello hello;
        struct verbs_challenge challenge;
        struct verbs_proof proof;
        struct verbs_welcome welcome;
        struct verbs_refuse refuse;
        struct verbs_offer offer;
        struct verbs_credit credit;
        struct verbs_note note;
    } as;
};

_Static_assert(sizeof(struct verbs_frame) == VERBS_FRAME_BYTES, "a frame is 256 bytes");
_Static_assert(offsetof(struct verbs_offer, part) == VERBS_OFFER_HEAD, "an offer");

#endif
