/* Owns sums of products on AMX tiles (Intel, since Sapphire Rapids); knows no dequantization.
 *
 * AMX multiplies 16 rows of 64 unsigned bytes by 64 rows of 16 columns of signed bytes, packed in groups of four as
 * for VNNI, into 32-bit sums: the sums of the vector code, bit for bit, at eight times its peak rate. Linux grants a
 * process the tile registers on request; threads started later inherit the permission.
 */
#ifndef QA_TILES_H
#define QA_TILES_H

#include <stddef.h>

#include "model.h"

enum { TILE_ROWS = 16, PAIR_ROWS = 2 * TILE_ROWS };

#ifdef __AMX_INT8__
#include <cpuid.h>
#include <immintrin.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { REQUEST_PERMISSION = 0x1023, TILE_DATA = 18 }; /* arch_prctl(2): ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA */

static int tiles_enabled;

/* Call once, before any thread runs the operator. */
static void enable_tiles(void) {
    unsigned int a, b, c, d;
    enum { AMX_TILE = 1 << 24, AMX_INT8 = 1 << 25 };
    if (!__get_cpuid_count(7, 0, &a, &b, &c, &d) || (d & (AMX_TILE | AMX_INT8)) != (AMX_TILE | AMX_INT8)) return;
    tiles_enabled = syscall(SYS_arch_prctl, REQUEST_PERMISSION, TILE_DATA) == 0;
}

/* Configure this thread's tile registers: eight tiles of 16 rows of 64 bytes. */
static void acquire_tiles(void) {
    if (!tiles_enabled) return;
    struct {
        uint8_t palette, start_row, reserved[14];
        uint16_t row_bytes[16];
        uint8_t rows[16];
    } config = {.palette = 1};
    for (int i = 0; i < 8; i++) {
        config.row_bytes[i] = 64;
        config.rows[i] = TILE_ROWS;
    }
    _tile_loadconfig(&config);
}

/* Without live tiles, a context switch need not save them. */
static void release_tiles(void) {
    if (tiles_enabled) _tile_release();
}

/* sums (PAIR_ROWS, PANEL) = bytes (PAIR_ROWS, inner) times one panel; only the first 16 rows unless `pair`. */
INLINE void multiply_tiles(const Linear *l, int panel, const uint8_t *bytes, int pair, int32_t *sums) {
    const int8_t *weights = l->packed + (size_t)panel * PANEL * l->inner;
    size_t inner = (size_t)l->inner;
    __asm__ volatile("" ::: "memory"); /* gcc's tile intrinsics do not say that they access memory */
    for (int half = 0; half < 2; half++) { /* 32 columns each */
        _tile_zero(0);
        _tile_zero(1);
        if (pair) {
            _tile_zero(2);
            _tile_zero(3);
        }
        for (size_t k = 0; k < inner; k += 64) {
            const int8_t *w = weights + k * PANEL + half * 128;
            _tile_loadd(6, w, 4 * PANEL);
            _tile_loadd(7, w + 64, 4 * PANEL);
            _tile_loadd(4, bytes + k, inner);
            _tile_dpbusd(0, 4, 6);
            _tile_dpbusd(1, 4, 7);
            if (pair) {
                _tile_loadd(5, bytes + TILE_ROWS * inner + k, inner);
                _tile_dpbusd(2, 5, 6);
                _tile_dpbusd(3, 5, 7);
            }
        }
        int32_t *out = sums + half * 32;
        _tile_stored(0, out, 4 * PANEL);
        _tile_stored(1, out + 16, 4 * PANEL);
        if (pair) {
            _tile_stored(2, out + TILE_ROWS * PANEL, 4 * PANEL);
            _tile_stored(3, out + TILE_ROWS * PANEL + 16, 4 * PANEL);
        }
    }
    __asm__ volatile("" ::: "memory");
}

/* Turn the tiles on, where there are any, or off; returns whether they are on. For tests. */
int qa_use_tiles(int wanted) {
    tiles_enabled = 0;
    if (wanted) enable_tiles();
    return tiles_enabled;
}
#else /* the compiler does not know AMX */
enum { tiles_enabled = 0 };
static void enable_tiles(void) {}
static void acquire_tiles(void) {}
static void release_tiles(void) {}
static void multiply_tiles(const Linear *l, int panel, const uint8_t *bytes, int pair, int32_t *sums) {
    (void)l, (void)panel, (void)bytes, (void)pair, (void)sums;
}
int qa_use_tiles(int wanted) { return (void)wanted, 0; }
#endif

#endif
