// A strip: vectors of one map, all correlated with a kernel of kh x kw, row by row.
//
//     y[h][w] = bias + sum over ty, tx of  weight[ty][tx] x[h + ty - kh / 2][w + tx - kw / 2]
//
// The last kh rows are kept in a ring, widened to the type that is computed in and with zeros at both ends: so every
// element is read once from the tensor, and no border needs a case of its own.
//
// The two layouts differ in what a vector's lanes are, and in nothing else:
//   NHWC: neighbouring channels of one pixel; the next pixel is a whole vector further in the ring;
//   NCHW: neighbouring pixels of one channel; the next pixel is one element further.
#pragma once

#include "simd.h"

// How the vectors of a strip lie in a row of the tensor: vector i begins at element offset + i * stride.
struct Layout {
    int64_t offset, stride, vectors;
    int64_t step;   // elements from a pixel to the next in the ring: a whole vector, or one
    int64_t whole;  // the first so many vectors have all lanes in the tensor; the others only lanes begin to end
    int begin, end;
};

// NHWC: vector i is pixel i, lane l is channel first + l. Where the tensor has fewer channels than a vector has lanes,
// `first` is below zero. A vector may begin with channels that are not the strip's own; what is written to them means
// nothing. So strips are taken from the last channel to the first, and each overwrites what the one before wrote below
// its own: whole vectors are so much faster than parts.
template <class T> Layout channel_lanes(int64_t first, int64_t channels, int64_t width) {
    constexpr int n = lanes<Compute<T>>;
    return {first, channels, width, n, first < 0 ? 0 : width, int(std::max<int64_t>(0, -first)), n};
}

// NCHW: vector i is the pixels from i * lanes on, of one channel.
template <class T> Layout pixel_lanes(int64_t width) {
    constexpr int n = lanes<Compute<T>>;
    return {0, n, (width + n - 1) / n, 1, width / n, 0, int(width % n)};
}

// Zeroed memory for all that a thread needs, in one piece: many small ones would take longer than a small image does.
class Arena {
public:
    explicit Arena(int64_t bytes) : memory(bytes, 0), next(memory.data()) {}

    template <class E> static int64_t bytes(int64_t size) {
        return (size * int64_t(sizeof(E)) + vector_bytes - 1) / vector_bytes * vector_bytes;
    }
    template <class E> E* take(int64_t size) {
        E* taken = reinterpret_cast<E*>(next);
        next += bytes<E>(size);
        return taken;
    }

private:
    Buffer<char> memory;
    char* next;
};

// A strip takes a tile, some neighbouring vectors of every row, row by row, and then the next tile.
template <class T> class Strip {
    using E = Compute<T>;
    using V = Vector<E>;
    static constexpr int n = lanes<E>;
    static constexpr int64_t summed_in_e = 512;  // so many vectors, before the sum goes on in double

public:
    // `tile` is the most vectors that a tile has.
    Strip(const Layout& at, int64_t tile, int64_t height, int64_t kh, int64_t kw)
        : at(at), tile(tile), height(height), kh(kh), kw(kw),
          row_size((tile * n + (kw - 1) * at.step + n - 1) / n * n) {}

    int64_t bytes(bool with_sums) const {
        const int64_t always = Arena::bytes<const E*>(taps()) + Arena::bytes<E>(kh * row_size + (taps() + 1) * n);
        const int64_t sums = Arena::bytes<E>((taps() + 1) * n + tile * n) + Arena::bytes<double>((taps() + 1) * n);
        return always + (with_sums ? sums : 0);
    }

    void take(Arena& arena, bool with_sums) {
        sources = arena.take<const E*>(taps());
        weights = arena.take<E>(kh * row_size + (taps() + 1) * n);
        ring = weights + (taps() + 1) * n;
        if (!with_sums) return;
        sums = arena.take<E>((taps() + 1) * n + tile * n);
        factor = sums + (taps() + 1) * n;
        long_sums = arena.take<double>((taps() + 1) * n);
    }

    int64_t taps() const { return kh * kw; }
    // One lane of the weight of tap t; the tap after the last is the bias.
    void set_weight(int64_t t, int lane, E value) { weights[t * n + lane] = value; }

    // From here on vectors `first_vector` to `first_vector + count` of row h and of the rows below it are taken.
    void start(int64_t h, int64_t first_vector, int64_t count) {
        if (first != first_vector || vectors != count) std::fill_n(ring, kh * row_size, E(0));
        first = first_vector, vectors = count;
        next = std::max<int64_t>(0, h - kh / 2);
    }

    // Read what row h needs and the ring does not have yet.
    void read(const T* image, int64_t row_stride, int64_t h) {
        const int64_t halo = at.step == n ? kw / 2 : 0;
        const int64_t begin = std::max<int64_t>(0, first - halo), end = std::min(at.vectors, first + vectors + halo);
        for (const int64_t last = std::min(height - 1, h + kh / 2); next <= last; ++next)
            copy(image + next * row_stride, begin, end, slot(next) + kw / 2 * at.step + (begin - first) * n);
    }

    // Row h of bias + weights * what was read, into the tile's own row.
    void correlate(T* tile_row, int64_t h) {
        int64_t rows = 0;
        for_kernel_rows(h, [&](const E* row) { sources[rows++] = row; });
        const E* used = weights + first_row(h) * kw * n;
        int64_t i = 0;
        for (; i + 8 <= vectors; i += 8) correlate_block<8>(tile_row, rows, used, i);
        if (i + 4 <= vectors) correlate_block<4>(tile_row, rows, used, i), i += 4;
        if (i + 2 <= vectors) correlate_block<2>(tile_row, rows, used, i), i += 2;
        if (i < vectors) correlate_block<1>(tile_row, rows, used, i);
    }

    // Add row h of an image times what was read, tap by tap, and what was read itself.
    void add_products(const T* image_row, int64_t h) {
        copy(image_row, first, first + vectors, factor);
        const E* center = slot(h) + kw / 2 * at.step;
        V sum = load<V>(sums + taps() * n);
        for (int64_t i = 0; i < vectors; ++i) sum += load<V>(center + i * n);
        store(sums + taps() * n, sum);
        int64_t count = 0;
        for_kernel_rows(h, [&](const E* row) {
            for (int64_t tx = 0; tx < kw; ++tx) sources[count++] = row + tx * at.step;
        });
        E* used = sums + first_row(h) * kw * n;
        int64_t t = 0;
        for (; t + 6 <= count; t += 6) product_block<6>(sources + t, used + t * n);
        switch (count - t) {
            case 5: product_block<5>(sources + t, used + t * n); break;
            case 4: product_block<4>(sources + t, used + t * n); break;
            case 3: product_block<3>(sources + t, used + t * n); break;
            case 2: product_block<2>(sources + t, used + t * n); break;
            case 1: product_block<1>(sources + t, used + t * n); break;
        }
        if ((pending += vectors) >= summed_in_e) finish_sums();
    }

    // The sums of all taps' products, lane by lane, and after the last tap that of what was read itself.
    const double* finish_sums() {
        for (int64_t i = 0; i < (taps() + 1) * n; ++i) long_sums[i] += sums[i], sums[i] = 0;
        pending = 0;
        return long_sums;
    }

    void clear_sums() { std::fill_n(long_sums, (taps() + 1) * n, 0.); }

private:
    E* slot(int64_t row) const { return ring + row % kh * row_size; }
    // Rows of the kernel that are inside the image.
    int64_t first_row(int64_t h) const { return std::max<int64_t>(0, kh / 2 - h); }
    int64_t end_row(int64_t h) const { return std::min(kh, height + kh / 2 - h); }

    template <class Call> void for_kernel_rows(int64_t h, Call call) const {
        const E* row = slot(h + first_row(h) - kh / 2);
        for (int64_t ty = first_row(h); ty < end_row(h); ++ty) {
            call(row);
            row = row == ring + (kh - 1) * row_size ? ring : row + row_size;
        }
    }

    void copy(const T* row, int64_t begin, int64_t end, E* target) const {
        const T* source = row + at.offset + begin * at.stride;
        for (int64_t i = begin; i < end; ++i, source += at.stride, target += n)
            store(target, i < at.whole ? load<V>(source) : load_part<V>(source, at.begin, at.end));
    }

    // P vectors at once, so that their sums stay in registers and each weight is loaded once for all.
    template <int P> void correlate_block(T* tile_row, int64_t rows, const E* weight, int64_t i) const {
        V result[P];
        for (int p = 0; p < P; ++p) result[p] = load<V>(weights + taps() * n);
        for (int64_t row = 0; row < rows; ++row) {
            const E* source = sources[row] + i * n;
            for (int64_t tx = 0; tx < kw; ++tx, source += at.step, weight += n) {
                const V w = load<V>(weight);
                for (int p = 0; p < P; ++p) result[p] += w * load<V>(source + p * n);
            }
        }
        T* target = tile_row + at.offset + i * at.stride;
        if (first + i + P <= at.whole) {
            for (int p = 0; p < P; ++p, target += at.stride) store(target, result[p]);
            return;
        }
        E results[P * n];  // not `result` itself, which would have to leave the registers for it
        for (int p = 0; p < P; ++p) store(results + p * n, result[p]);
        for (int p = 0; p < P; ++p, target += at.stride) {
            if (first + i + p < at.whole) store(target, load<V>(results + p * n));
            else store_part(target, load<V>(results + p * n), at.begin, at.end);
        }
    }

    // P taps at once, so that their sums stay in registers and each factor is loaded once for all.
    template <int P> void product_block(const E* const* first_source, E* result) const {
        const E* source[P];
        V sum[P];
        for (int p = 0; p < P; ++p) source[p] = first_source[p], sum[p] = load<V>(result + p * n);
        for (int64_t i = 0; i < vectors * n; i += n) {
            const V f = load<V>(factor + i);
            for (int p = 0; p < P; ++p) sum[p] += f * load<V>(source[p] + i);
        }
        for (int p = 0; p < P; ++p) store(result + p * n, sum[p]);
    }

    Layout at;
    int64_t tile, height, kh, kw, row_size;
    int64_t first = 0, vectors = 0, next = 0, pending = 0;
    const E** sources = nullptr;  // where the kernel's rows, or its taps, begin in the ring
    E *weights = nullptr, *ring = nullptr, *sums = nullptr, *factor = nullptr;
    double* long_sums = nullptr;
};
