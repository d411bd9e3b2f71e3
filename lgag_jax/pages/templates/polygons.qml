<!DOCTYPE qgis PUBLIC 'http://mrcc.com/qgis.dtd' 'SYSTEM'>
<qgis version="3.0.0" styleCategories="Symbology|Labeling" labelsEnabled="0">
{% if classes | length == 1 %}
  <renderer-v2 symbollevels="0" enableorderby="0" forceraster="0" type="singleSymbol">
{% else %}
  <renderer-v2 symbollevels="0" enableorderby="0" forceraster="0" type="categorizedSymbol" attr="{{ class_field }}">
    <categories>
{% for name, _ in classes %}
      <category value="{{ name }}" label="{{ name }}" symbol="{{ loop.index0 }}" render="true"/>
{% endfor %}
    </categories>
{% endif %}
    <symbols>
{% for _, colour in classes %}
      <symbol type="fill" name="{{ loop.index0 }}" alpha="1" clip_to_extent="1" force_rhr="0">
        <layer class="SimpleFill" enabled="1" locked="0" pass="0">
{% set properties = {
  "color": colour ~ ",70", "style": "solid", "joinstyle": "bevel", "outline_color": colour ~ ",255",
  "outline_style": "solid", "outline_width": "0.5", "outline_width_unit": "MM",
} %}
          <Option type="Map">
{% for key, value in properties.items() %}
            <Option name="{{ key }}" type="QString" value="{{ value }}"/>
{% endfor %}
          </Option>
{# Older versions of QGIS read these instead. #}
{% for key, value in properties.items() %}
          <prop k="{{ key }}" v="{{ value }}"/>
{% endfor %}
        </layer>
      </symbol>
{% endfor %}
    </symbols>
  </renderer-v2>
  <layerGeometryType>2</layerGeometryType>
</qgis>
