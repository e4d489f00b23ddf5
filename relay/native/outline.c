/* A JSON body without its long texts: see relay/outline.py, which says what for.
 *
 * Everything is read between two pointers; what is written is never longer than what was read. Nothing is judged here but
 * the inside of the texts that are left out: all else stays as it is, for a real parser to read.
 */
#include "module.h"
#include "eight.h"

#define DEEPEST 64 /* levels that are told apart; a body with more is not for here */
#define BLOCK 64   /* bytes that are looked at together */
#define BEGINNING 64 /* bytes of a string by which words are told from what is none */
#define NUMBERED 6   /* bytes of an escape that gives a character's number */

typedef struct {
    const char *begin, *end; /* begin is NULL: there is none */
} span;

typedef struct {
    span key; /* the one whose value comes */
    int object;
} level;

typedef struct {
    const char *end;   /* the quote that ends it; NULL: there is none */
    Py_ssize_t beside; /* its bytes beside one for each of its characters */
    Py_ssize_t more;   /* the same of it in UTF-8, with nothing escaped */
    int escaped;       /* has escapes */
    int odd;           /* has what no string may have */
} text;

/* How many bytes a character takes that begins here and is not ASCII; 0 if it is not UTF-8. */
static int
width(const unsigned char *at, const unsigned char *end)
{
    int size = *at >= 0xF0 ? 4 : *at >= 0xE0 ? 3 : 2, more;

    if (*at < 0xC2 || *at > 0xF4 || end - at < size)
        return 0;
    for (more = 1; more < size; more++)
        if ((at[more] & 0xC0) != 0x80)
            return 0;
    if ((*at == 0xE0 && at[1] < 0xA0) || (*at == 0xED && at[1] > 0x9F) || (*at == 0xF0 && at[1] < 0x90)
        || (*at == 0xF4 && at[1] > 0x8F))
        return 0;
    return size;
}

/* Bytes that are compared at once. Above 0x7F they are below 0. */
typedef signed char wide __attribute__((vector_size(16)));

/* How many bytes begin here that a string may hold as they are, all of one byte each. */
static Py_ssize_t
run_of(const unsigned char *begin, const unsigned char *end)
{
    const wide none = {0}, space = none + 0x20, quote = none + '"', escape = none + '\\';
    const unsigned char *at = begin;

    for (; end - at >= BLOCK; at += BLOCK) {
        wide marks = none, some;
        uint64_t halves[2];
        size_t place;

        for (place = 0; place < BLOCK; place += sizeof some) {
            memcpy(&some, at + place, sizeof some);
            marks |= (some < space) | (some == quote) | (some == escape);
        }
        memcpy(halves, &marks, sizeof halves);
        if (halves[0] | halves[1])
            break;
    }
    return at - begin;
}

/* Where the first byte is that a string may not hold as it is. */
static const unsigned char *
mark(const unsigned char *at, const unsigned char *end)
{
    int steps = 0;

    while (IN_ORDER && end - at >= 8) {
        uint64_t eight, marks;

        memcpy(&eight, at, 8);
        marks = (eight | zeros(eight ^ ONES * '"') | zeros(eight ^ ONES * '\\') | ((eight - ONES * 0x20) & ~eight)) & ONES << 7;
        if (marks)
            return at + first(marks);
        at += 8;
        if (++steps == 4) {
            /* Far between: look at more of them together. */
            at += run_of(at, end);
            steps = 0;
        }
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
        int digit = at[place];

        if (digit >= '0' && digit <= '9')
            digit -= '0';
        else if ((digit | 0x20) >= 'a' && (digit | 0x20) <= 'f')
            digit = (digit | 0x20) - 'a' + 10;
        else
            return -1;
        number = number * 16 + digit;
    }
    return number;
}

/* An escape begins here. How many bytes it takes: at least two, which must be there. */
static int
escape(const unsigned char *at, const unsigned char *end, text *found)
{
    int number, size = 2, more = 0;

    found->escaped = 1;
    switch (at[1]) {
    case '"': case '\\': case '/': case 'b': case 'f': case 'n': case 'r': case 't':
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
        if (number >= 0)
            break;
        /* fall through */
    default:
        found->odd = 1;
    }
    found->more += more;
    found->beside += size - 1;
    return size;
}

/* A string whose first byte is here, up to its end. */
static text
text_at(const char *begin, const char *end)
{
    const unsigned char *at = (const unsigned char *)begin, *last = (const unsigned char *)end;
    text found = {NULL, 0, 0, 0, 0};

    while ((at = mark(at, last)) < last && *at != '"') {
        if (*at == '\\') {
            if (last - at < 2)
                return found;
            at += escape(at, last, &found);
        }
        else if (*at < 0x20) {
            found.odd = 1;
            at++;
        }
        else
            while (at < last && *at >= 0x80) {
                int size = width(at, last);

                found.odd |= size == 0;
                size += size == 0;
                found.more += size - 1;
                found.beside += size - 1;
                at += size;
            }
    }
    if (at < last)
        found.end = (const char *)at;
    return found;
}

static int
among(span key, PyObject *names)
{
    Py_ssize_t place, size = key.end - key.begin;

    for (place = 0; key.begin != NULL && place < PyTuple_GET_SIZE(names); place++) {
        PyObject *name = PyTuple_GET_ITEM(names, place);
        if (PyBytes_GET_SIZE(name) == size && memcmp(PyBytes_AS_STRING(name), key.begin, (size_t)size) == 0)
            return 1;
    }
    return 0;
}

/* As relay.kit.estimate_tokens. */
static Py_ssize_t
tokens_of(const char *begin, text found)
{
    Py_ssize_t length = found.end - begin - found.beside;
    double wide = (double)found.more / 2;

    if (!found.more)
        return (length + 3) / 4;
    return (Py_ssize_t)(0.72 * wide + ((double)length - wide) / 4) + 1;
}

static int
blank(char byte)
{
    return byte == ' ' || byte == '\n' || byte == '\r' || byte == '\t';
}

/* Whether a string begins like a text: with blanks in it, or letters beyond ASCII. Neither base64 nor addresses do. */
static int
wordy(const char *begin, const char *end)
{
    const unsigned char *at = (const unsigned char *)begin, *last = (const unsigned char *)end;

    if (last - at > BEGINNING)
        last = at + BEGINNING;
    for (; at < last; at++)
        if (*at < '!' || *at > '~' || (*at == '\\' && at[1] != '/'))
            return 1;
    return 0;
}

typedef struct {
    PyObject *fields, *texts, *bulk, *lists, *labels; /* relay.outline.Texts */
    PyObject *spot, *known;
    Py_ssize_t longest;
    /* What was found: */
    Py_ssize_t tokens;
    span model;
    span list;           /* the value of one of `lists` */
    Py_ssize_t number;   /* which of `known` it is; below 0: none */
    int models, listed, labelled;
} search;

/* Which of the lists that are known stands here; below 0 if none does. */
static Py_ssize_t
known_at(PyObject *known, const char *begin, const char *end)
{
    Py_ssize_t place;

    for (place = 0; place < PyTuple_GET_SIZE(known); place++) {
        PyObject *one = PyTuple_GET_ITEM(known, place);
        Py_ssize_t size = PyBytes_GET_SIZE(one);
        /* What takes its place is two bytes long. */
        if (size >= 2 && size <= end - begin && memcmp(PyBytes_AS_STRING(one), begin, (size_t)size) == 0)
            return place;
    }
    return -1;
}

static int
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

/* Copy what stays of the body up to here, and go on from `next`. */
static char *
keep(char *to, const char **copied, const char *place, const char *next)
{
    memcpy(to, *copied, (size_t)(place - *copied));
    to += place - *copied;
    *copied = next;
    return to;
}

/* Behind a key of the outermost object. Where to go on: behind its value, if that is a list that is known, and the list
 * is an empty one then. NULL if the body is not for here. */
static const char *
outermost(search *wanted, span key, const char *place, const char *end, char **to, const char **copied)
{
    if (among(key, wanted->spot) && wanted->models++)
        return NULL; /* Nobody knows which one counts. */
    if (!among(key, wanted->lists))
        return place;
    if (wanted->listed++)
        return NULL;
    while (place < end && blank(*place))
        place++;
    if (place == end || *place != '[')
        return place;
    wanted->list.begin = place;
    wanted->number = known_at(wanted->known, place, end);
    if (wanted->number < 0)
        return place;
    *to = keep(*to, copied, place, place + PyBytes_GET_SIZE(PyTuple_GET_ITEM(wanted->known, wanted->number)));
    memcpy(*to, "[]", 2);
    *to += 2;
    wanted->list.end = *copied;
    return *copied;
}

/* Write the body without its long texts. How long it is then; below 0 if it is not for here. */
static Py_ssize_t
cut(search *wanted, const char *begin, const char *end, char *out)
{
    level levels[DEEPEST];
    const char *place = begin, *copied = begin, *next;
    char *to = out;
    int depth = 0;
    text found;

    memset(&levels[0], 0, sizeof levels[0]);
    while (place < end) {
        switch (*place) {
        case '{':
        case '[':
            if (++depth == DEEPEST)
                return -1;
            memset(&levels[depth], 0, sizeof levels[depth]);
            levels[depth].object = *place++ == '{';
            break;
        case '}':
        case ']':
            if (--depth < 0)
                return -1;
            place++;
            if (depth == 1 && wanted->list.begin != NULL && wanted->list.end == NULL)
                wanted->list.end = place;
            break;
        case ',':
            levels[depth].key.begin = NULL;
            place++;
            break;
        case '"':
            found = text_at(++place, end);
            if (found.end == NULL)
                return -1;
            next = found.end + 1;
            while (next < end && blank(*next))
                next++;
            if (next < end && *next == ':') {
                if (found.escaped && depth == 1)
                    return -1; /* It may be one of those that count, spelled otherwise. */
                levels[depth].key.begin = place;
                levels[depth].key.end = found.end;
                place = next + 1;
                if (depth == 1 && (place = outermost(wanted, levels[1].key, place, end, &to, &copied)) == NULL)
                    return -1;
                break;
            }
            wanted->labelled |= begins_with(place, found.end, wanted->labels);
            if (depth == 1 && among(levels[1].key, wanted->spot)) {
                wanted->model.begin = place - 1;
                wanted->model.end = found.end + 1;
            }
            else if (found.end - place >= wanted->longest && depth >= 1 && among(levels[1].key, wanted->fields)) {
                span key = levels[depth].object ? levels[depth].key : (span){NULL, NULL};
                int counts = among(key, wanted->texts);

                if (counts || (among(key, wanted->bulk) && !wordy(place, found.end))) {
                    if (found.odd)
                        return -1;
                    if (counts)
                        wanted->tokens += tokens_of(place, found);
                    to = keep(to, &copied, place, found.end);
                }
            }
            place = next;
            break;
        default:
            place++;
        }
    }
    if (copied == begin && wanted->list.end == NULL)
        return -1;
    return keep(to, &copied, end, end) - out;
}

static int
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

/* Where it is in the body; nowhere is 0 to 0. */
static Py_ssize_t
place_of(const char *at, const char *begin)
{
    return at == NULL ? 0 : at - begin;
}

/* (raw, longest, Texts, spot, known) -> None | (the body without them, their tokens, begin and end of the spot, begin and
 * end of the list, which known one that is or -1, whether there is a label) */
static PyObject *
outline(PyObject *module, PyObject *const *args, Py_ssize_t count)
{
    search wanted;
    PyObject *out, **const tables[] = {&wanted.fields, &wanted.texts, &wanted.bulk, &wanted.lists, &wanted.labels};
    const size_t many = sizeof tables / sizeof *tables;
    const char *begin;
    Py_ssize_t size;
    size_t place;
    int fits;

    memset(&wanted, 0, sizeof wanted);
    fits = count == 5 && PyBytes_Check(args[0]) && PyTuple_Check(args[2]) && PyTuple_GET_SIZE(args[2]) == (Py_ssize_t)many
        && names(args[3]) && names(args[4]);
    for (place = 0; fits && place < many; place++)
        fits = names(*tables[place] = PyTuple_GET_ITEM(args[2], place));
    if (!fits) {
        PyErr_SetString(PyExc_TypeError, "bytes, a number, five tuples of bytes in one, and two more are needed");
        return NULL;
    }
    wanted.longest = PyLong_AsSsize_t(args[1]);
    if (wanted.longest == -1 && PyErr_Occurred())
        return NULL;
    wanted.spot = args[3];
    wanted.known = args[4];
    wanted.number = -1;
    begin = PyBytes_AS_STRING(args[0]);
    out = PyBytes_FromStringAndSize(NULL, PyBytes_GET_SIZE(args[0]));
    if (out == NULL)
        return NULL;
    size = cut(&wanted, begin, begin + PyBytes_GET_SIZE(args[0]), PyBytes_AS_STRING(out));
    if (size < 0) {
        Py_DECREF(out);
        Py_RETURN_NONE;
    }
    if (_PyBytes_Resize(&out, size) < 0)
        return NULL;
    return Py_BuildValue(
        "NnnnnnnO", out, wanted.tokens, place_of(wanted.model.begin, begin), place_of(wanted.model.end, begin),
        place_of(wanted.list.begin, begin), place_of(wanted.list.end, begin), wanted.number,
        wanted.labelled ? Py_True : Py_False
    );
}

static PyMethodDef functions[] = {
    {"outline", (PyCFunction)(void (*)(void))outline, METH_FASTCALL, "See relay.outline."},
    {NULL, NULL, 0, NULL},
};

int
relay_add_outline(PyObject *module)
{
    return PyModule_AddFunctions(module, functions);
}
