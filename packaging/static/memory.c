/* Copying and comparing memory in place of musl's functions, which for every size begin what a processor has for large ones, on
 * x86-64, and compare byte by byte. Python copies and compares names: a few bytes, a million times in a first boot. What is copied
 * is read from both ends, so that there is no rest that is shorter than a block. */

#include <stddef.h>
#include <stdint.h>

typedef uint8_t block __attribute__((vector_size(16), aligned(1), may_alias));
typedef uint64_t word __attribute__((aligned(1), may_alias));
typedef uint32_t half __attribute__((aligned(1), may_alias));

#define COPY_BOTH_ENDS(type) \
    do { \
        type first = *(const type *)from, last = *(const type *)(from + size - sizeof(type)); \
        *(type *)to = first; \
        *(type *)(to + size - sizeof(type)) = last; \
    } while (0)

static inline void
copy(char *to, const char *from, size_t size)
{
    if (size > 16) {
        block first = *(const block *)from, last = *(const block *)(from + size - 16);
        if ((size_t)(to - from) >= size) { /* also where `to` is before `from` */
            for (size_t i = 16; i < size - 16; i += 16) {
                *(block *)(to + i) = *(const block *)(from + i);
            }
        }
        else {
            for (size_t i = size - 16; i > 16;) {
                i -= 16;
                *(block *)(to + i) = *(const block *)(from + i);
            }
        }
        *(block *)to = first;
        *(block *)(to + size - 16) = last;
    }
    else if (size >= 8) {
        COPY_BOTH_ENDS(word);
    }
    else if (size >= 4) {
        COPY_BOTH_ENDS(half);
    }
    else if (size) {
        char first = from[0], middle = from[size / 2], last = from[size - 1];
        to[0] = first;
        to[size / 2] = middle;
        to[size - 1] = last;
    }
}

void *
memcpy(void *restrict to, const void *restrict from, size_t size)
{
    copy(to, from, size);
    return to;
}

void *
memmove(void *to, const void *from, size_t size)
{
    copy(to, from, size);
    return to;
}

int
memcmp(const void *one, const void *other, size_t size)
{
    const uint8_t *a = one, *b = other;
    while (size >= sizeof(word) && *(const word *)a == *(const word *)b) {
        a += sizeof(word);
        b += sizeof(word);
        size -= sizeof(word);
    }
    while (size && *a == *b) {
        a++;
        b++;
        size--;
    }
    return size ? *a - *b : 0;
}
