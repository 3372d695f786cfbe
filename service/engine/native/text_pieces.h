/* Owns WordPiece of the words that are ASCII, by tables made once; knows no other character and no model. */
#ifndef QA_TEXT_PIECES_H
#define QA_TEXT_PIECES_H

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

enum { FOREIGN = -1, NONE = -2 };             /* instead of an id */
enum { LETTER, MARK, SPACE, CONTROL, BEYOND }; /* kinds of bytes */

/* FNV-1a, which can be walked back: a factor that is undone by another modulo 2^32. */
#define HASH_START 2166136261u
#define HASH_FACTOR 16777619u
#define HASH_INVERSE 899433627u

typedef struct {
    uint32_t hash;
    int32_t at, length, id; /* of the piece in `pieces`; length 0 for an empty slot */
} Slot;

typedef struct {
    Slot *slots; /* (mask + 1), at most half of them taken */
    uint32_t mask;
    int32_t longest; /* piece */
} Table;

typedef struct {
    Table fronts, rests; /* pieces that begin a word, pieces that go on with one */
    const uint8_t *pieces;
    int64_t longest; /* bytes; longer words are unknown */
    int32_t unknown;
    uint8_t kinds[256], fold[256];
} Vocabulary;

/* Rows long enough for a token per byte, of which the first `count` columns are filled. */
typedef struct {
    int64_t *ids, *starts, *ends, *words;
    int64_t count;
} Tokens;

static uint8_t kind_of(int byte) {
    if (byte >= 0x80) return BEYOND;
    if (byte == ' ' || byte == '\t' || byte == '\n' || byte == '\r') return SPACE;
    if (byte < ' ' || byte == 0x7f) return CONTROL;
    int letter = (byte | 0x20) >= 'a' && (byte | 0x20) <= 'z';
    return letter || (byte >= '0' && byte <= '9') ? LETTER : MARK;
}

static uint32_t slots_for(int32_t pieces) {
    uint32_t slots = 2;
    while (slots < 2 * (uint32_t)pieces) slots *= 2;
    return slots;
}

/* Put `count` pieces into the empty `table`; they follow one another in v->pieces from `at` on. Returns
 * where they end. */
static int32_t fill(const Vocabulary *v, Table *table, int32_t at, const int32_t *lengths, const int32_t *ids,
                    int32_t count) {
    for (int32_t n = 0; n < count; at += lengths[n++]) {
        uint32_t hash = HASH_START;
        for (int32_t i = 0; i < lengths[n]; i++) hash = (hash ^ v->pieces[at + i]) * HASH_FACTOR;
        uint32_t slot = hash & table->mask;
        while (table->slots[slot].length) slot = (slot + 1) & table->mask;
        table->slots[slot] = (Slot){hash, at, lengths[n], ids[n]};
        if (lengths[n] > table->longest) table->longest = lengths[n];
    }
    return at;
}

static int32_t find(const Vocabulary *v, const Table *table, const uint8_t *word, int64_t length, uint32_t hash) {
    for (uint32_t slot = hash & table->mask;; slot = (slot + 1) & table->mask) {
        const Slot *s = &table->slots[slot];
        if (!s->length) return NONE;
        if (s->hash != hash || s->length != length) continue;
        int64_t i = 0;
        while (i < length && v->fold[word[i]] == v->pieces[s->at + i]) i++;
        if (i == length) return s->id;
    }
}

/* Have memory bring the slots of all words: looked up one by one, each would be waited for. */
static void ask_for(const Vocabulary *v, const uint8_t *text, int64_t bytes) {
    uint32_t hash = HASH_START;
    for (int64_t i = 0; i < bytes; i++) {
        if (v->kinds[text[i]] == LETTER) {
            hash = (hash ^ v->fold[text[i]]) * HASH_FACTOR;
        } else {
            __builtin_prefetch(&v->fronts.slots[hash & v->fronts.mask]);
            hash = HASH_START;
        }
    }
}

static void add(Tokens *tokens, int64_t id, int64_t start, int64_t end, int64_t word) {
    tokens->ids[tokens->count] = id;
    tokens->starts[tokens->count] = start;
    tokens->ends[tokens->count] = end;
    tokens->words[tokens->count++] = word;
}

/* One word, `number`, that begins at code point `place`: the longest piece from the left, again and again
 * (Wu et al. 2016); else the whole is unknown. */
static void split(const Vocabulary *v, const uint8_t *word, int64_t length, int64_t place, int64_t number,
                  Tokens *tokens) {
    const Table *table = &v->fronts;
    int64_t before = tokens->count, first = 0;
    while (first < length && length <= v->longest) {
        int64_t last = length - first < table->longest ? length : first + table->longest;
        int32_t id = NONE;
        uint32_t hash = HASH_START;
        for (int64_t i = first; i < last; i++) hash = (hash ^ v->fold[word[i]]) * HASH_FACTOR;
        while (last > first && (id = find(v, table, word + first, last - first, hash)) == NONE)
            hash = (hash * HASH_INVERSE) ^ v->fold[word[--last]];
        if (id == NONE) break;
        add(tokens, id, place + first, place + last, number);
        first = last;
        table = &v->rests;
    }
    if (first == length) return;
    tokens->count = before;
    add(tokens, v->unknown, place, place + length, number);
}

/* Tokens of UTF-8 `text`. What has a character beyond ASCII in it stays whole between white space, as one
 * word with the id FOREIGN. Returns 0, or 1 for a text that holds a control character. */
static int cut(const Vocabulary *v, const uint8_t *text, int64_t bytes, Tokens *tokens) {
    int64_t place = 0, word = 0; /* place: code points before `at` */
    ask_for(v, text, bytes < 4096 ? bytes : 4096); /* a longer text takes long anyway */
    for (int64_t at = 0; at < bytes;) {
        int64_t end = at, points = 0;
        int foreign = 0;
        for (; end < bytes && v->kinds[text[end]] != SPACE; end++) {
            if (v->kinds[text[end]] == CONTROL) return 1;
            foreign |= v->kinds[text[end]] == BEYOND;
            points += (text[end] & 0xc0) != 0x80; /* not a byte that goes on with a character */
        }
        if (foreign) {
            add(tokens, FOREIGN, place, place + points, word++);
        } else {
            for (int64_t i = at, next; i < end; i = next) {
                next = i + 1;
                if (v->kinds[text[i]] == LETTER)
                    while (next < end && v->kinds[text[next]] == LETTER) next++;
                split(v, text + i, next - i, place + i - at, word++, tokens);
            }
        }
        place += points + (end < bytes);
        at = end + 1;
    }
    return 0;
}

#endif
