<!DOCTYPE qgis PUBLIC 'http://mrcc.com/qgis.dtd' 'SYSTEM'>
<qgis version="3.0.0" styleCategories="Symbology|Labeling" labelsEnabled="0">
  <renderer-v2 symbollevels="0" enableorderby="0" forceraster="0" type="categorizedSymbol" attr="kind">
    <categories>
{% for kind, _, _ in kinds %}
      <category value="{{ kind }}" label="{{ kind }} point" symbol="{{ loop.index0 }}" render="true"/>
{% endfor %}
    </categories>
    <symbols>
{% for _, colour, angle in kinds %}
      <symbol type="marker" name="{{ loop.index0 }}" alpha="1" clip_to_extent="1" force_rhr="0">
        <layer class="SimpleMarker" enabled="1" locked="0" pass="0">
{% set properties = {
  "name": "triangle", "angle": angle, "color": colour ~ ",255", "outline_color": "255,255,255,255",
  "outline_style": "solid", "outline_width": "0.3", "outline_width_unit": "MM", "size": "2.6",
  "size_unit": "MM",
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
  <layerGeometryType>0</layerGeometryType>
</qgis>
