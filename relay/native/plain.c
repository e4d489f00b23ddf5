/* Objects that are nothing but text, and what they count for: see relay.outline.Field, which says which those are.
 *
 * They are left out of what the real parser reads, so nothing must pass here that is not JSON, nor an object with a key
 * twice. It may refuse what it likes: that stays, for the parser.
 */
#include "module.h"
#include "plain.h"

#define DEEPEST 32
#define MOST_KEYS 64 /* of one object */
#define LONGEST 20   /* bytes of a number, of which any parser makes one */

/* The forms of relay.outline. */
enum { TEXT = 1, WORD = 2, MANY = 4, ONE = 8, DATA = 16, REST = 32 };

typedef struct {
    const char *at, *end;
    const plan *plan;
    PyObject *labels;
    Py_ssize_t tokens;
    Py_ssize_t written; /* bytes of what was read by `any`, with no blanks and no needless escapes */
    int labelled;
} reader;

/* The first byte that is not blank; 0 where nothing comes. */
static char
next(reader *from)
{
    while (from->at < from->end && blank(*from->at))
        from->at++;
    return from->at < from->end ? *from->at : 0;
}

/* Go on behind one byte, if that comes next. */
static int
past(reader *from, char byte)
{
    if (next(from) != byte)
        return 0;
    from->at++;
    return 1;
}

/* A string; its first byte is in `begin`, its end in `found`. */
static int
string(reader *from, const char **begin, text *found)
{
    if (!past(from, '"'))
        return 0;
    *begin = from->at;
    *found = text_at(from->at, from->end);
    if (found->end == NULL || found->odd)
        return 0;
    from->at = found->end + 1;
    return 1;
}

/* A key and its colon. One with escapes could be the same as another. */
static int
key(reader *from, span *name)
{
    text found;

    if (!string(from, &name->begin, &found) || found.escaped || !past(from, ':'))
        return 0;
    name->end = found.end;
    return 1;
}

/* Behind a value: whether another one comes, or `last`, in which `*more` becomes 0. */
static int
separated(reader *from, char last, int *more)
{
    *more = past(from, ',');
    return *more || past(from, last);
}

static int
literal(reader *from, const char *word)
{
    size_t size = strlen(word);

    if ((size_t)(from->end - from->at) < size || memcmp(from->at, word, size) != 0)
        return 0;
    from->at += size;
    return 1;
}

static const char *
digits(const char *at, const char *end)
{
    while (at < end && *at >= '0' && *at <= '9')
        at++;
    return at;
}

static int
number(reader *from)
{
    const char *begin = from->at, *at = begin + (*begin == '-'), *first = at;

    at = digits(at, from->end);
    if (at == first || (*first == '0' && at - first > 1))
        return 0;
    if (at < from->end && *at == '.') {
        first = ++at;
        at = digits(at, from->end);
        if (at == first)
            return 0;
    }
    if (at < from->end && (*at | 0x20) == 'e') {
        at++;
        at += at < from->end && (*at == '+' || *at == '-');
        first = at;
        at = digits(at, from->end);
        /* With more digits it may be infinite, which is refused. */
        if (at == first || at - first > 2)
            return 0;
    }
    from->at = at;
    return at - begin <= LONGEST;
}

/* A number, or true, false or null. */
static int
scalar(reader *from)
{
    switch (*from->at) {
    case 't':
        return literal(from, "true");
    case 'f':
        return literal(from, "false");
    case 'n':
        return literal(from, "null");
    default:
        return number(from);
    }
}

static void
look(reader *from, const char *begin, const text *found)
{
    from->labelled |= begins_with(begin, found->end, from->labels);
}

/* Any value, if none of its keys is one of `not`, which is for the outermost of them. */
static int
any(reader *from, PyObject *not, int depth)
{
    span keys[MOST_KEYS];
    int count, more, other;
    const char *begin;
    text found;
    char first = next(from), last = first == '{' ? '}' : ']';

    if (first == '"') {
        if (!string(from, &begin, &found))
            return 0;
        look(from, begin, &found);
        from->written += found.end - begin - found.less + 2;
        return 1;
    }
    if (first != '{' && first != '[') {
        begin = from->at;
        if (!first || !scalar(from))
            return 0;
        from->written += from->at - begin;
        return 1;
    }
    if (depth == DEEPEST)
        return 0;
    from->at++;
    from->written += 2;
    if (past(from, last))
        return 1;
    for (count = 0, more = 1; more; count++) {
        if (first == '{') {
            if (count == MOST_KEYS || !key(from, &keys[count]) || (not != NULL && among(keys[count], not)))
                return 0;
            for (other = 0; other < count; other++)
                if (same(keys[other], keys[count]))
                    return 0;
            from->written += keys[count].end - keys[count].begin + 3;
        }
        if (!any(from, NULL, depth + 1) || !separated(from, last, &more))
            return 0;
        from->written += more;
    }
    return 1;
}

static int object(reader *from, fields of, int depth);

/* A list of objects that are all alike. */
static int
many(reader *from, fields of, int depth)
{
    int more = 1;

    from->at++;
    if (past(from, ']'))
        return 1;
    while (more)
        if (next(from) != '{' || !object(from, of, depth) || !separated(from, ']', &more))
            return 0;
    return 1;
}

/* The value of a field. */
static int
value(reader *from, const field *of, int depth)
{
    const char *begin;
    text found;

    switch (next(from)) {
    case 0:
        return 0;
    case '"':
        if (of->forms & REST)
            break;
        if (!(of->forms & (TEXT | WORD)) || !string(from, &begin, &found))
            return 0;
        look(from, begin, &found);
        if (of->forms & TEXT)
            from->tokens += tokens_of(begin, found);
        else if (of->words != NULL && !among((span){begin, found.end}, of->words))
            return 0;
        return 1;
    case '[':
        if (of->forms & MANY)
            return many(from, of->inner, depth);
        break;
    case '{':
        if (of->forms & ONE) {
            from->tokens += of->tokens;
            return object(from, of->inner, depth);
        }
        if (of->forms & DATA) {
            from->written = 0;
            if (!any(from, of->words, depth))
                return 0;
            from->tokens += of->tokens + from->written / 4;
            return 1;
        }
        break;
    case 'n':
        return literal(from, "null");
    default:
        if (of->forms & WORD)
            return of->words == NULL && scalar(from);
    }
    return of->forms & REST && any(from, NULL, depth);
}

/* An object whose first byte is here, with some of these fields and no others. */
static int
object(reader *from, fields of, int depth)
{
    uint64_t seen = 0;
    int more = 1;

    if (depth == DEEPEST)
        return 0;
    from->at++;
    if (past(from, '}'))
        return 1;
    while (more) {
        int place = of.first;
        span name;

        if (!key(from, &name))
            return 0;
        while (place < of.last && !same(name, from->plan->fields[place].name))
            place++;
        if (place == of.last || seen & UINT64_C(1) << place)
            return 0;
        seen |= UINT64_C(1) << place;
        if (!value(from, &from->plan->fields[place], depth + 1) || !separated(from, '}', &more))
            return 0;
    }
    return 1;
}

const char *
relay_plain(const char *begin, const char *end, const plan *what, PyObject *labels, Py_ssize_t *tokens, int *labelled)
{
    reader from = {begin, end, what, labels, 0, 0, 0};

    if (!object(&from, what->outer, 0))
        return NULL;
    *tokens = from.tokens;
    *labelled = from.labelled;
    return from.at;
}

static int
add(plan *to, PyObject *from, fields *made)
{
    Py_ssize_t place, many = PyTuple_GET_SIZE(from);

    if (many > MOST_FIELDS - to->outer.last) {
        PyErr_SetString(PyExc_ValueError, "there are too many fields");
        return -1;
    }
    /* Beside each other, and what is in them behind them. */
    made->first = to->outer.last;
    made->last = to->outer.last += (int)many;
    for (place = 0; place < many; place++) {
        PyObject *one = PyTuple_GET_ITEM(from, place), *name, *inner;
        field *found = &to->fields[made->first + place];
        int nested;

        if (!PyTuple_Check(one)
            || !PyArg_ParseTuple(one, "SiO!i", &name, &found->forms, &PyTuple_Type, &inner, &found->tokens)) {
            if (!PyErr_Occurred())
                PyErr_SetString(PyExc_TypeError, "a field is a tuple");
            return -1;
        }
        found->name = (span){PyBytes_AS_STRING(name), PyBytes_AS_STRING(name) + PyBytes_GET_SIZE(name)};
        nested = found->forms & (MANY | ONE);
        found->words = nested || !PyTuple_GET_SIZE(inner) ? NULL : inner;
        if (nested ? add(to, inner, &found->inner) < 0 : !names(inner)) {
            if (!PyErr_Occurred())
                PyErr_SetString(PyExc_TypeError, "what is in a field are fields, or bytes");
            return -1;
        }
    }
    return 0;
}

int
relay_plan(plan *to, PyObject *from)
{
    fields made;

    to->outer.first = to->outer.last = 0;
    if (add(to, from, &made) < 0)
        return -1;
    to->outer = made;
    return 0;
}
