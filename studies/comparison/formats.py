"""Blocks (kind, content) as Markdown, and as one HTML page that holds its pictures."""
import base64
import html
import re

from inceptionnext_seg.files import markdown_table, without_html


def markdown(blocks):
    """The blocks as Markdown; pictures are referred to by name."""

    def escaped(row):
        return [str(cell).replace('|', '\\|') for cell in row]

    def render(kind, content):
        if kind == 'table':
            header, rows = content
            return markdown_table(escaped(header), map(escaped, rows))
        if kind == 'image':
            return f'![{content[1]}]({content[0]})'
        if kind == 'code':
            fence = '`' * max(3, 1 + max(map(len, re.findall('`+', ' '.join(content))), default=0))
            return '\n'.join([f'{fence}sh', *content, fence])
        return {'title': '# ', 'heading': '## ', 'text': ''}[kind] + without_html(content)

    return '\n\n'.join(render(*block) for block in blocks) + '\n'


STYLE = '''body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem }
table { border-collapse: collapse; margin: 1rem 0; display: block; overflow-x: auto }
th, td { padding: .25rem .75rem; border-bottom: 1px solid #ddd; text-align: right }
th:first-child, td:first-child { text-align: left }
img { max-width: 100% }
pre, code { background: #f4f4f4 } pre { padding: .75rem; overflow-x: auto }'''


def html_page(blocks, pictures):
    """The blocks as one HTML file that holds its pictures."""

    def inline(text):
        text = re.sub(r'\*\*(.+?)\*\*', r'<strong>\1</strong>', html.escape(str(text)))
        return re.sub(r'`(.+?)`', r'<code>\1</code>', text)

    def row(cells, tag):
        return '<tr>' + ''.join(f'<{tag}>{inline(cell)}</{tag}>' for cell in cells) + '</tr>'

    def render(kind, content):
        if kind == 'table':
            header, rows = content
            return '\n'.join(['<table>', row(header, 'th'), *(row(cells, 'td') for cells in rows), '</table>'])
        if kind == 'image':
            data = base64.b64encode(pictures[content[0]]).decode()
            return f'<img alt="{html.escape(content[1])}" src="data:image/png;base64,{data}">'
        if kind == 'code':
            return f'<pre>{html.escape(chr(10).join(content))}</pre>'
        tag = {'title': 'h1', 'heading': 'h2', 'text': 'p'}[kind]
        return f'<{tag}>{inline(content)}</{tag}>'

    head = f'<meta charset="utf-8"><title>{html.escape(blocks[0][1])}</title><style>{STYLE}</style>'
    body = '\n'.join(render(*block) for block in blocks)
    return f'<!DOCTYPE html>\n<html lang="en"><head>{head}</head>\n<body>\n{body}\n</body></html>\n'
