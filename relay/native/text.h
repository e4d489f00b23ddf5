/* Strings of JSON, and what they count for: what outline.c, plain.c and valve.c have in common.
 *
 * Everything is read between two pointers and nothing is written; no byte is looked at before it is known to be there.
 */
#ifndef RELAY_TEXT_H
#define RELAY_TEXT_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include "eight.h"

#define BLOCK 64   /* bytes that are looked at together */
#define NUMBERED 6 /* bytes of an escape that gives a character's number */

typedef struct {
    const char *end;   /* the quote that ends it; NULL: there is none */
    Py_ssize_t beside; /* its bytes beside one for each of its characters */
    Py_ssize_t more;   /* the same of it in UTF-8, with nothing escaped */
    Py_ssize_t less;   /* bytes that it is shorter by where no more is escaped than has to be */
    int escaped;       /* has escapes */
    int odd;           /* has what no string may have */
} text;

static inline int
blank(char byte)
{
    return byte == ' ' || byte == '\n' || byte == '\r' || byte == '\t';
}

/* Whether it is a further byte of a character. */
static inline int
further(unsigned char byte)
{
    return (byte & 0xC0) == 0x80;
}

/* How many bytes a character takes that begins here and is not ASCII; 0 if it is not UTF-8. */
static inline int
width(const unsigned char *at, const unsigned char *end)
{
    if (*at < 0xE0)
        return *at >= 0xC2 && end - at >= 2 && further(at[1]) ? 2 : 0;
    if (*at < 0xF0)
        return end - at >= 3 && further(at[1]) && further(at[2]) && (*at != 0xE0 || at[1] >= 0xA0)
                && (*at != 0xED || at[1] < 0xA0) ? 3 : 0;
    return *at <= 0xF4 && end - at >= 4 && further(at[1]) && further(at[2]) && further(at[3])
            && (*at != 0xF0 || at[1] >= 0x90) && (*at != 0xF4 || at[1] < 0x90) ? 4 : 0;
}

/* Pass over characters that are not ASCII and begin before `limit`. It stops at what is not UTF-8. */
static inline const unsigned char *
beyond(const unsigned char *at, const unsigned char *limit, const unsigned char *end, text *found)
{
    int size;

    while (at < limit && *at >= 0x80 && (size = width(at, end)) != 0) {
        found->more += size - 1;
        found->beside += size - 1;
        at += size;
    }
    return at;
}

/* Bytes that are compared at once. Above 0x7F they are below 0. */
typedef signed char wide __attribute__((vector_size(16)));

#define PARTS (BLOCK / (int)sizeof(wide))

/* Which of the bytes from here on a string may not hold as they are, or are not all of a character: those have all bits. */
static inline wide
marked(const unsigned char *at)
{
    const wide none = {0}, space = none + 0x20, quote = none + '"', backslash = none + '\\';
    wide some;

    memcpy(&some, at, sizeof some);
    return (some < space) | (some == quote) | (some == backslash);
}

/* Where the first byte is that a string may not hold as it is. */
static const unsigned char *
mark(const unsigned char *at, const unsigned char *end)
{
    while (IN_ORDER && end - at >= 8) {
        uint64_t eight, marks;

        memcpy(&eight, at, 8);
        marks = (eight | zeros(eight ^ ONES * '"') | zeros(eight ^ ONES * '\\') | ((eight - ONES * 0x20) & ~eight)) & ONES << 7;
        if (marks)
            return at + first(marks);
        at += 8;
    }
    while (at < end && *at >= 0x20 && *at < 0x80 && *at != '"' && *at != '\\')
        at++;
    return at;
}

/* The number in an escape that begins here, of four digits; below 0 if there is none. */
static int
number_at(const unsigned char *at, const unsigned char *end)
{
    int number = 0, place;

    if (end - at < NUMBERED || at[0] != '\\' || at[1] != 'u')
        return -1;
    for (place = 2; place < NUMBERED; place++) {
        int digit = value_of((char)at[place]);

        if (digit < 0)
            return -1;
        number = number * 16 + digit;
    }
    return number;
}

/* What has an escape of two bytes. */
static const char SHORT[0x80] = {
    ['"'] = 1, ['\\'] = 1, ['\b'] = 1, ['\f'] = 1, ['\n'] = 1, ['\r'] = 1, ['\t'] = 1,
};

/* An escape begins here. How many bytes it takes: at least two, which must be there. */
static int
escape(const unsigned char *at, const unsigned char *end, text *found)
{
    int number, size = 2, more = 0;

    found->escaped = 1;
    switch (at[1]) {
    case '/':
        found->less++;
        break;
    case '"': case '\\': case 'b': case 'f': case 'n': case 'r': case 't':
        break;
    case 'u':
        number = number_at(at, end);
        if (number >= 0)
            size = NUMBERED;
        if (number >= 0xD800 && number < 0xE000) {
            int other = number_at(at + size, end);

            /* Half a character, which is none without the other half. */
            if (number >= 0xDC00 || other < 0xDC00 || other >= 0xE000)
                number = -1;
            else
                size += NUMBERED;
            more = 3;
        }
        else
            more = (number >= 0x80) + (number >= 0x800);
        if (number >= 0) {
            found->less += number < 0x80 && SHORT[number] ? size - 2 : number >= 0x20 ? size - 1 - more : 0;
            break;
        }
        /* fall through */
    default:
        found->odd = 1;
    }
    found->more += more;
    found->beside += size - 1;
    return size;
}

#ifdef __SSE2__
typedef char narrow __attribute__((vector_size(16)));

/* Marked bytes as bits. */
static inline uint64_t
bits_of(wide marks)
{
    return (uint64_t)__builtin_ia32_pmovmskb128((narrow)marks);
}

/* The quote that ends a string that begins here, if that is short and plain, as most are. */
static inline const unsigned char *
near(const unsigned char *at, const unsigned char *end)
{
    uint64_t marks = end - at < (Py_ssize_t)sizeof(wide) ? 0 : bits_of(marked(at));

    return marks && at[__builtin_ctzll(marks)] == '"' ? at + __builtin_ctzll(marks) : NULL;
}

/* What has an escape of two bytes, by the second one, unless it need not have one. */
static const char SIMPLE[0x100] = {
    ['"'] = 1, ['\\'] = 1, ['b'] = 1, ['f'] = 1, ['n'] = 1, ['r'] = 1, ['t'] = 1,
};

/* Pass over text, block by block, with what stands in nearly every one: simple escapes, and characters of several bytes. It
 * stops at anything else, and before what is less than a block. */
static const unsigned char *
skip(const unsigned char *at, const unsigned char *end, text *found)
{
    /* One byte more than a block, for an escape that begins at its end. */
    while (end - at > BLOCK) {
        wide parts[PARTS], any = {0};
        uint64_t marks = 0;
        int part, place, past = BLOCK;

        for (part = 0; part < PARTS; part++)
            any |= parts[part] = marked(at + part * sizeof any);
        if (bits_of(any))
            for (part = 0; part < PARTS; part++)
                marks |= bits_of(parts[part]) << part * sizeof any;
        while (marks) {
            const unsigned char *next;

            place = __builtin_ctzll(marks);
            if (at[place] == '\\') {
                if (!SIMPLE[at[place + 1]])
                    return at + place;
                found->escaped = 1;
                found->beside++;
                next = at + place + 2;
            }
            else {
                next = beyond(at + place, at + BLOCK, end, found);
                if (next < at + BLOCK && (next == at + place || *next >= 0x80))
                    return next;
            }
            place = (int)(next - at);
            if (place >= BLOCK) {
                past = place;
                break;
            }
            /* What is escaped stands for itself, and so do the other bytes of a character. */
            marks = marks >> place << place;
        }
        at += past;
    }
    return at;
}
#else
#define near(at, end) NULL

/* The same for ASCII only: without such an instruction, it is not told at once where in a block something stands. */
static const unsigned char *
skip(const unsigned char *at, const unsigned char *end, text *found)
{
    for (; end - at >= BLOCK; at += BLOCK) {
        wide any = {0};
        uint64_t halves[2];
        int part;

        for (part = 0; part < PARTS; part++)
            any |= marked(at + part * sizeof any);
        memcpy(halves, &any, sizeof halves);
        if (halves[0] | halves[1])
            break;
    }
    return at;
}
#endif

/* A string whose first byte is here, up to its end. */
static text
text_at(const char *begin, const char *end)
{
    const unsigned char *at = (const unsigned char *)begin, *last = (const unsigned char *)end;
    text found = {NULL, 0, 0, 0, 0, 0};

    if ((found.end = (const char *)near(at, last)) != NULL)
        return found;
    while ((at = mark(skip(at, last, &found), last)) < last && *at != '"') {
        if (*at == '\\') {
            if (last - at < 2)
                return found;
            at += escape(at, last, &found);
        }
        else if (*at < 0x20) {
            found.odd = 1;
            at++;
        }
        else {
            at = beyond(at, last, last, &found);
            if (at < last && *at >= 0x80) {
                found.odd = 1;
                at++;
            }
        }
    }
    if (at < last)
        found.end = (const char *)at;
    return found;
}

/* Whether it is a tuple of bytes. */
static inline int
names(PyObject *object)
{
    Py_ssize_t place;

    if (!PyTuple_Check(object))
        return 0;
    for (place = 0; place < PyTuple_GET_SIZE(object); place++)
        if (!PyBytes_Check(PyTuple_GET_ITEM(object, place)))
            return 0;
    return 1;
}

static inline int
same(span one, span other)
{
    return one.end - one.begin == other.end - other.begin
        && memcmp(one.begin, other.begin, (size_t)(one.end - one.begin)) == 0;
}

static inline int
is(span key, PyObject *name)
{
    return same(key, (span){PyBytes_AS_STRING(name), PyBytes_AS_STRING(name) + PyBytes_GET_SIZE(name)});
}

static inline int
among(span key, PyObject *names)
{
    Py_ssize_t place;

    for (place = 0; key.begin != NULL && place < PyTuple_GET_SIZE(names); place++)
        if (is(key, PyTuple_GET_ITEM(names, place)))
            return 1;
    return 0;
}

static inline int
begins_with(const char *begin, const char *end, PyObject *labels)
{
    Py_ssize_t place;

    for (place = 0; place < PyTuple_GET_SIZE(labels); place++) {
        PyObject *label = PyTuple_GET_ITEM(labels, place);
        if (PyBytes_GET_SIZE(label) <= end - begin && memcmp(PyBytes_AS_STRING(label), begin, (size_t)PyBytes_GET_SIZE(label)) == 0)
            return 1;
    }
    return 0;
}

/* As relay.kit.estimate_tokens. */
static inline Py_ssize_t
tokens_of(const char *begin, text found)
{
    Py_ssize_t length = found.end - begin - found.beside;
    double wide = (double)found.more / 2;

    if (!found.more)
        return (length + 3) / 4;
    return (Py_ssize_t)(0.72 * wide + ((double)length - wide) / 4) + 1;
}

#endif
