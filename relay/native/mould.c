/* Plain text in a stream, told from all else: the compiled twin of what relay/mould.py does in Python.
 *
 * Both twins say the same of every input: tests/core/test_mould.py holds them against each other.
 */
#include "module.h"
#include "mould.h"

static PyObject *
pair(Py_ssize_t first, Py_ssize_t second)
{
    PyObject *both = PyTuple_New(2), *one = PyLong_FromSsize_t(first), *two = PyLong_FromSsize_t(second);

    if (both == NULL || one == NULL || two == NULL) {
        Py_XDECREF(both);
        Py_XDECREF(one);
        Py_XDECREF(two);
        return NULL;
    }
    PyTuple_SET_ITEM(both, 0, one);
    PyTuple_SET_ITEM(both, 1, two);
    return both;
}

/* (data, begin, mould, into=None) -> (where it is something else, bytes of text before that) */
static PyObject *
looked(PyObject *const *args, Py_ssize_t count, int chunked)
{
    PyObject *into = NULL;
    span data;
    mould kind;
    const char *reached;
    Py_ssize_t begin, size = 0;

    if (count != 3 && count != 4) {
        PyErr_SetString(PyExc_TypeError, "three arguments are needed, or four");
        return NULL;
    }
    if (bytes_of(args[0], &data) < 0 || mould_of(args[2], &kind) < 0 || (count == 4 && target_of(args[3], &into) < 0))
        return NULL;
    begin = PyLong_AsSsize_t(args[1]);
    if (begin == -1 && PyErr_Occurred())
        return NULL;
    if (begin < 0 || begin > data.end - data.begin) {
        PyErr_SetString(PyExc_ValueError, "begin is outside of data");
        return NULL;
    }
    reached = (chunked ? chunks : events)(&kind, data.begin + begin, data.end, &size);
    if (into != NULL && append(into, &kind, data.begin + begin, reached, size, chunked) < 0)
        return NULL;
    return pair(reached - data.begin, size);
}

static PyObject *
run(PyObject *module, PyObject *const *args, Py_ssize_t count)
{
    return looked(args, count, 0);
}

/* For tests, and for a valve in Python: the one in C has no need to come by here. */
static PyObject *
pieces(PyObject *module, PyObject *const *args, Py_ssize_t count)
{
    return looked(args, count, 1);
}

static PyMethodDef functions[] = {
    {"run", (PyCFunction)(void (*)(void))run, METH_FASTCALL, "See relay.mould.run."},
    {"chunks", (PyCFunction)(void (*)(void))pieces, METH_FASTCALL, "See relay.mould.chunks."},
    {NULL, NULL, 0, NULL},
};

int
relay_add_mould(PyObject *module)
{
    return PyModule_AddFunctions(module, functions);
}
