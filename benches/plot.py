"""Draws lines over a logarithmic axis of clients, as SVG."""
import math

WIDTH, HEIGHT, LEFT, TOP, RIGHT, BOTTOM = 640, 300, 50, 40, 30, 45
COLOURS = ["#c2410c", "#64748b", "#2563eb"]


def tick_step(top):
    """A round step with at most six ticks."""
    step = 10 ** math.floor(math.log10(top / 5))
    return next(step * factor for factor in (1, 2, 5, 10) if top / (step * factor) <= 6)


def svg(title, lines):
    """One polyline for each entry of `lines`: a name and its points, (clients, value)."""
    xs = sorted({x for points in lines.values() for x, _ in points})
    low, high = math.log(xs[0]), math.log(xs[-1] if len(xs) > 1 else xs[0] * 10)
    top = 1.1 * max(y for points in lines.values() for _, y in points)

    def at(x, y):
        across = (math.log(x) - low) / (high - low) * (WIDTH - LEFT - RIGHT)
        return f"{LEFT + across:.1f}", f"{HEIGHT - BOTTOM - y / top * (HEIGHT - TOP - BOTTOM):.1f}"

    out = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" role="img" '
        f'aria-label="{title}" font-family="sans-serif" font-size="12" fill="#64748b">',
        f'<text x="{LEFT}" y="20" font-size="14">{title}</text>',
        f'<text x="{(WIDTH + LEFT - RIGHT) // 2}" y="{HEIGHT - 8}" text-anchor="middle">clients</text>',
    ]
    step = tick_step(top)
    for number in range(int(top / step) + 1):
        _, y = at(xs[0], number * step)
        out.append(f'<line x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y}" y2="{y}" stroke="#94a3b8" stroke-opacity="0.4"/>')
        out.append(f'<text x="{LEFT - 8}" y="{y}" dy="4" text-anchor="end">{number * step:g}</text>')
    shown = [x for x, following in zip(xs, xs[1:] + [math.inf]) if following / x > 1.4]
    for x in shown:
        out.append(f'<text x="{at(x, 0)[0]}" y="{HEIGHT - BOTTOM + 18}" text-anchor="middle">{x:,}</text>')
    for number, (name, points) in enumerate(lines.items()):
        colour = COLOURS[number % len(COLOURS)]
        path = " ".join(",".join(at(x, y)) for x, y in points)
        out.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"/>')
        out += [f'<circle cx="{cx}" cy="{cy}" r="3" fill="{colour}"/>' for cx, cy in (at(x, y) for x, y in points)]
        legend = WIDTH - RIGHT - 90 * (len(lines) - number)
        out.append(f'<text x="{legend + 18}" y="20" fill="{colour}">{name}</text>')
        out.append(f'<line x1="{legend}" x2="{legend + 14}" y1="16" y2="16" stroke="{colour}" stroke-width="2"/>')
    return "\n".join([*out, "</svg>\n"])
