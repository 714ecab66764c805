/* The kernels for CUDA, compiled when a program runs, and as C by the tests. What comes before this text defines the number
   type T, KERNEL and FOR_EACH. Each kernel gets the number of its threads' items, sizes, numbers, inputs and its output. */

typedef unsigned long long size;

/* Where in its plane the largest value of a window stands, of equal values the first; padding never wins. */
KERNEL void max_pool_places(size n, size d, size h, size w, size od, size oh, size ow, size kd, size kh, size kw, size sd,
                            size sh, size sw, size pd, size ph, size pw, const T *x, unsigned *out) {
    FOR_EACH(i, n) {
        const T *plane = x + i / (od * oh * ow) * (d * h * w);
        size z = i / (oh * ow) % od * sd, y = i / ow % oh * sh, column = i % ow * sw, best = d * h * w;
        for (size a = z; a < z + kd; a++) {
            for (size b = y; b < y + kh; b++) {
                for (size c = column; c < column + kw; c++) {
                    if (a >= pd && a - pd < d && b >= ph && b - ph < h && c >= pw && c - pw < w) {
                        size at = ((a - pd) * h + (b - ph)) * w + (c - pw);
                        if (best == d * h * w || plane[at] > plane[best]) best = at;
                    }
                }
            }
        }
        out[i] = (unsigned)best;
    }
}

/* Values, and then 1 where the gradient passes. */
KERNEL void fixed_point(size n, T delta, T low, T high, const T *x, T *out) {
    FOR_EACH(i, n) {
        T steps = (T)floor((double)(fabs(x[i]) / delta) + 0.5) * delta;
        int above = x[i] > high, below = x[i] < low;
        out[i] = above ? high : below ? low : x[i] < 0 ? -steps : steps;
        out[n + i] = above || below ? (T)0 : (T)1;
    }
}

/* The same for powers of two; is_signed and with_zero are 0 or 1. */
KERNEL void pow2(size n, size is_signed, size with_zero, T low, T high, T zero_below, const T *x, T *out) {
    FOR_EACH(i, n) {
        T modulus = fabs(x[i]), power = (T)exp2((double)round(log2(modulus)));
        int negative = x[i] < 0, cut = power > high;
        T value = cut ? high : power < low ? (with_zero && modulus < zero_below ? (T)0 : low) : power;
        value = negative ? -value : value;
        if (negative && !is_signed) {
            value = with_zero ? (T)0 : low;
            cut = 1;
        }
        out[i] = value;
        out[n + i] = cut ? (T)0 : (T)1;
    }
}
