/* Eight bytes at a time, in an order in which the first one is the lowest. Where it is not, bytes are looked at one by one.
 * And hexadecimal digits, which chunks and escapes have. */
#ifndef RELAY_EIGHT_H
#define RELAY_EIGHT_H

#include <stdint.h>
#include <string.h>

typedef struct {
    const char *begin, *end; /* where it says so, begin may be NULL: there is none */
} span;

#define ONES UINT64_C(0x0101010101010101)
#if defined(__BYTE_ORDER__) && __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
#define IN_ORDER 1
#else
#define IN_ORDER 0
#endif

/* Bytes that are 0 have their highest bit set here, and of the others at most some above such a one: so the lowest that is
 * set is right. */
static inline uint64_t
zeros(uint64_t eight)
{
    return (eight - ONES) & ~eight;
}

/* The first byte whose highest bit is set; there must be one. */
static inline int
first(uint64_t marks)
{
    return __builtin_ctzll(marks & ONES << 7) / 8;
}

/* What a hexadecimal digit stands for; below 0 if it is none. */
static inline int
value_of(char letter)
{
    if (letter >= '0' && letter <= '9')
        return letter - '0';
    letter |= 0x20;
    return letter >= 'a' && letter <= 'f' ? letter - 'a' + 10 : -1;
}

#endif
